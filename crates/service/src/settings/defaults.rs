//! Makes the file's values the defaults of the arguments, so that clap itself applies the precedence.

use std::path::Path;

use clap::{Arg, ArgAction, Command};

use super::error::SettingsError;
use super::key_matching::{Meeting, meets};
use super::toml_file::{Entry, single_text, text_of};

/// Makes the file's values the defaults of their arguments.
pub(super) fn with_defaults(
    file: &Path,
    mut command: Command,
    command_path: &[String],
    entries: &[Entry],
) -> Result<Command, SettingsError> {
    let arguments: Vec<Arg> = command.get_arguments().cloned().collect();
    for argument in &arguments {
        let mut values: Vec<&'static str> = Vec::new();
        for entry in entries {
            match meets(entry, command_path, argument) {
                Some(Meeting::Value) => {
                    // The table of the subcommand takes precedence over a general key with the same meaning.
                    let is_scoped =
                        !command_path.is_empty() && entry.path.starts_with(command_path);
                    if values.is_empty() || is_scoped {
                        values = value_texts(file, entry, argument)?;
                    }
                }
                Some(Meeting::Pair(key)) => {
                    values.push(kept(format!("{key}={}", single_text(file, entry)?)));
                }
                None => {}
            }
        }
        if !values.is_empty() {
            command = command.mut_arg(argument.get_id(), |argument| {
                argument.required(false).default_values(values)
            });
        }
    }
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        let mut path = command_path.to_vec();
        path.push(name.clone());
        let mut outcome = Ok(());
        command = command.mut_subcommand(&name, |sub| {
            match with_defaults(file, sub.clone(), &path, entries) {
                Ok(changed) => changed,
                Err(error) => {
                    outcome = Err(error);
                    sub
                }
            }
        });
        outcome?;
    }
    Ok(command)
}

/// Clap needs defaults with a static lifetime. The configuration is read once per process, so this leaks at most the
/// size of the file.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn value_texts(
    file: &Path,
    entry: &Entry,
    argument: &Arg,
) -> Result<Vec<&'static str>, SettingsError> {
    let takes_several = matches!(argument.get_action(), ArgAction::Append)
        || argument
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1);
    match &entry.value {
        toml::Value::Array(elements) if takes_several => elements
            .iter()
            .map(|element| Ok(kept(text_of(file, entry, element)?)))
            .collect(),
        _ => Ok(vec![kept(single_text(file, entry)?)]),
    }
}
