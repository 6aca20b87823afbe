//! Matches keys of the file with arguments.

use clap::{Arg, ArgAction};

use super::toml_file::Entry;

/// How an entry of the file matches an argument.
pub(super) enum Meeting {
    /// The entry holds the argument's value.
    Value,
    /// The entry is one pair of a repeatable argument; this is the pair's key.
    Pair(String),
}

/// Whether an entry belongs to an argument of the command that this path of subcommands leads to.
pub(super) fn meets(entry: &Entry, command_path: &[String], argument: &Arg) -> Option<Meeting> {
    let long = argument.get_long()?;
    if long == "config" || long == "help" || long == "version" {
        return None;
    }
    // A table may name the subcommand, or be just a prefix of the flag.
    let scoped = (!command_path.is_empty() && entry.path.starts_with(command_path))
        .then(|| entry.path.split_at(command_path.len()).1);
    let plain = Some(entry.path.as_slice());
    [scoped, plain].into_iter().flatten().find_map(|path| {
        if path.join("-").replace('_', "-") == long {
            return Some(Meeting::Value);
        }
        if !matches!(argument.get_action(), ArgAction::Append) {
            return None;
        }
        (1..path.len()).find_map(|split| {
            let (table, key) = path.split_at(split);
            let plural = table.join("-").replace('_', "-");
            (singular(&plural).as_deref() == Some(long)).then(|| Meeting::Pair(key.join(".")))
        })
    })
}

fn singular(plural: &str) -> Option<String> {
    plural
        .strip_suffix("ies")
        .map(|stem| format!("{stem}y"))
        .or_else(|| plural.strip_suffix('s').map(str::to_owned))
}
