//! A member that is not known, told with the known name that is most like it.

use serde_json::{Map, Value};

use crate::json::Misfit;

/// How like a name must be to one that is known: 1 for the same.
const ALIKE: f64 = 0.75;

/// A member that is not known: the known name that is most like it is told if it is not given, too, and else all that are known.
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
