#![allow(clippy::expect_used)]
//! Files that are generated from the code and committed. A test compares them with the code.

/// Fails when the committed file differs from the generated text. If `UPDATE_SCHEMA` is set, it writes the file
/// instead.
pub(crate) fn assert_same(path: &str, made: &str) {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        if let Some(folder) = std::path::Path::new(path).parent() {
            std::fs::create_dir_all(folder).expect("the folder can be made");
        }
        std::fs::write(path, made).expect("the file can be written");
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == made,
        "{path} is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem-orders`, then compose"
    );
}
