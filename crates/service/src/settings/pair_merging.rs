//! Merges the pairs of repeatable arguments (`--kafka-property k=v`) key by key. Clap can only replace all of them.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::key_matching::{Meeting, meets};
use super::toml_file::{Entry, single_text};

/// When flags or the environment give pairs (`--kafka-property k=v`), clap drops the defaults, and with them the pairs
/// of the file. These flags add the file's pairs again, except those whose key was given, and repeat the given pairs.
pub(super) fn pairs_to_merge(
    root: &Command,
    matches: &ArgMatches,
    entries: &[Entry],
) -> Vec<OsString> {
    let mut command = root;
    let mut matches = matches;
    let mut path = Vec::new();
    while let Some((name, inner)) = matches.subcommand() {
        let Some(sub) = command.find_subcommand(name) else {
            break;
        };
        (command, matches) = (sub, inner);
        path.push(name.to_owned());
    }
    let mut flags = Vec::new();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else {
            continue;
        };
        let id = argument.get_id().as_str();
        let from_file: Vec<(String, String)> = entries
            .iter()
            .filter_map(|entry| match meets(entry, &path, argument) {
                Some(Meeting::Pair(key)) => {
                    let value = single_text(Path::new(""), entry).ok()?;
                    Some((key, value))
                }
                _ => None,
            })
            .collect();
        let source = matches.value_source(id);
        if from_file.is_empty()
            || !matches!(
                source,
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        {
            continue;
        }
        let given: Vec<String> = matches
            .get_raw(id)
            .into_iter()
            .flatten()
            .filter_map(|value| value.to_str().map(str::to_owned))
            .collect();
        let is_given = |key: &str| {
            given
                .iter()
                .any(|pair| pair.split_once('=').is_some_and(|(given, _)| given == key))
        };
        for (key, value) in &from_file {
            if !is_given(key) {
                flags.push(format!("--{long}={key}={value}").into());
            }
        }
        // A flag on the command line replaces the environment's pairs, so they are repeated as flags.
        if source == Some(ValueSource::EnvVariable) {
            flags.extend(given.iter().map(|pair| format!("--{long}={pair}").into()));
        }
    }
    flags
}
