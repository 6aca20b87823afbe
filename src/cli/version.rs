//! The output of `tandem --version`: which program this is, and which contracts it implements.

use std::sync::LazyLock;

/// The first line is name and version, as with `-V`. The others name the commit and the versions of the events on the
/// topics.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let schemas = [
        tandem_accounts::domain::event::DATA_SCHEMA,
        tandem_orders::domain::event::DATA_SCHEMA,
    ];
    let names: Vec<&str> = schemas.iter().map(|urn| short(urn)).collect();
    format!(
        "{}\ncommit {}\nevents {}",
        env!("CARGO_PKG_VERSION"),
        env!("BUILT_FROM_COMMIT"),
        names.join(", ")
    )
});

/// Shortens `urn:tandem:schema:customer-change-event:v2` to `customer-change-event:v2`.
fn short(urn: &str) -> &str {
    urn.strip_prefix("urn:tandem:schema:").unwrap_or(urn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_commit_and_schemas() {
        let lines: Vec<&str> = VERSION.lines().collect();
        assert_eq!(lines[0], env!("CARGO_PKG_VERSION"));
        assert!(lines[1].starts_with("commit "), "{lines:?}");
        assert_eq!(
            lines[2],
            "events customer-change-event:v2, order-change-event:v1"
        );
    }
}
