//! How documents are rewritten on this port, and which operation names may appear in metrics. Names that clients invent
//! would be an unbounded set of labels.

use std::collections::HashSet;

/// The name for operations that are not known.
pub(super) const OTHER: &str = "Other";

/// How documents are rewritten.
#[derive(Debug, Clone, Default)]
pub struct Treatment {
    /// Operations that keep their names. All others get one common name. Without it every name is kept.
    pub known_operations: Option<HashSet<String>>,
    /// Whether selections that may turn out empty get an additional field.
    pub fill_empty_selections: bool,
    /// Whether the inner server is a federated router. Then aliases that collide with the fields that it adds are
    /// renamed.
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
