//! How documents are processed on this port, and which operation names appear in metrics: names that clients make up would be labels without a bound.

use std::collections::HashSet;

/// The name that an operation gets which is none of the known ones.
pub(super) const OTHER: &str = "Other";

/// How documents are treated.
#[derive(Debug, Clone, Default)]
pub struct Treatment {
    /// Operations whose names are kept; all others get one name. Without it every name is kept.
    pub known_operations: Option<HashSet<String>>,
    /// Whether selections that may come out empty are filled.
    pub fill_empty_selections: bool,
    /// Whether a federated router stands behind: aliases that cover what it asks for by itself get other names.
    pub is_federated: bool,
}

pub(super) fn kept_name(treatment: &Treatment, name: &str) -> String {
    if is_known(treatment, name) {
        name.to_owned()
    } else {
        OTHER.to_owned()
    }
}

pub(super) fn is_known(treatment: &Treatment, name: &str) -> bool {
    treatment
        .known_operations
        .as_ref()
        .is_none_or(|known| known.contains(name))
}
