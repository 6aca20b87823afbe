//! Whether flags, environment and file fit.

use super::Finding;

/// What the variables that are no settings come to. That the others fit is known: the command line was read.
pub(super) fn examine(unknown_variables: Vec<String>) -> Vec<Finding> {
    if unknown_variables.is_empty() {
        return vec![Finding::good(
            "settings",
            "flags, environment and file are understood",
        )];
    }
    unknown_variables
        .into_iter()
        .map(|sentence| {
            let (found, mend) = sentence
                .split_once("; ")
                .unwrap_or((sentence.as_str(), "--help names the settings"));
            Finding::doubtful("settings", found, mend)
        })
        .collect()
}
