//! Reports an unknown member, with the most similar known name.

use serde_json::{Map, Value};

use crate::json::Misfit;

/// The lowest similarity at which a known name is suggested. 1 means the same name.
const ALIKE: f64 = 0.75;

/// The misfit of an unknown member. The reason suggests the most similar known name that the document does not contain.
/// The expectation lists all known names.
pub(super) fn unknown(
    field: String,
    name: &str,
    fields: &[&str],
    given: Option<&Map<String, Value>>,
) -> Misfit {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(name);
    let is_free = |field: &&&str| given.is_none_or(|given| !given.contains_key(**field));
    let alike = fields
        .iter()
        .filter(is_free)
        .map(|field| (strsim::jaro_winkler(&wanted, &plain(field)), *field))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    Misfit {
        field,
        reason: match alike {
            Some((_, alike)) => format!("unknown field; did you mean `{alike}`?"),
            None => "unknown field".to_owned(),
        },
        expected: Some(format!("one of {}", fields.join(", "))),
    }
}
