//! Examines the settings: flags, environment and configuration file.

use super::Finding;

/// Reports variables that are no settings. All others are known to be valid, because the command line was parsed.
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
