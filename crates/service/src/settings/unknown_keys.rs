//! Refuses keys of the file that match no argument, and suggests the most similar one.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Command;

use super::error::SettingsError;
use super::key_matching::meets;
use super::toml_file::Entry;

/// Calls `visit` for the command and each subcommand, with the path of names that leads to it.
fn walk(command: &Command, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Command)) {
    visit(path, command);
    for sub in command.get_subcommands() {
        path.push(sub.get_name().to_owned());
        walk(sub, path, visit);
        path.pop();
    }
}

pub(super) fn check_keys(
    file: &Path,
    command: &Command,
    entries: &[Entry],
) -> Result<(), SettingsError> {
    for entry in entries {
        let mut known = false;
        let mut keys = BTreeSet::new();
        walk(command, &mut Vec::new(), &mut |path, command| {
            for argument in command.get_arguments() {
                known |= meets(entry, path, argument).is_some();
                if let Some(long) = argument.get_long() {
                    keys.insert(long.to_owned());
                    if !path.is_empty() {
                        keys.insert(format!("{}.{long}", path.join(".")));
                    }
                }
            }
        });
        if known {
            continue;
        }
        let key = entry.key();
        let nearest = nearest_key(entry, &keys);
        return Err(SettingsError::UnknownKey {
            path: file.to_owned(),
            key,
            nearest,
        });
    }
    Ok(())
}

/// The known key that is most similar to the entry, in the entry's notation: with the same tables.
fn nearest_key(entry: &Entry, known: &BTreeSet<String>) -> Option<String> {
    const ALIKE: f64 = 0.75;
    let plain = |key: &str| key.replace(['.', '_'], "-");
    let wanted = plain(&entry.key());
    let (likeness, nearest) = known
        .iter()
        .map(|key| (strsim::jaro_winkler(&wanted, &plain(key)), key))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))?;
    if likeness < ALIKE {
        return None;
    }
    let tables = &entry.path[..entry.path.len().saturating_sub(1)];
    let prefix = format!("{}-", plain(&tables.join(".")));
    Some(match nearest.strip_prefix(&prefix) {
        Some(last) if !tables.is_empty() => format!("{}.{last}", tables.join(".")),
        _ => nearest.clone(),
    })
}
