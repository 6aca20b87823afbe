//! Finds out where an invalid value comes from. To clap all values are flags, also those of the file.

use std::path::Path;

use super::error::SettingsError;
use super::toml_file::{Entry, single_text, text_of};

/// Makes the error name the file, if the invalid value comes from it.
pub(super) fn name_file(error: clap::Error, file: &Path, entries: &[Entry]) -> SettingsError {
    use clap::error::{ContextKind, ContextValue};

    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else {
        return error.into();
    };
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error.into();
    };
    let flag = argument
        .trim_start_matches("--")
        .split([' ', '='])
        .next()
        .unwrap_or_default();
    let origin = entries.iter().find(|entry| {
        let key = entry.path.join("-").replace('_', "-");
        let holds_value = match &entry.value {
            toml::Value::Array(elements) => elements
                .iter()
                .any(|element| text_of(file, entry, element).is_ok_and(|text| text == *value)),
            _ => single_text(file, entry).is_ok_and(|text| text == *value),
        };
        holds_value && (key == flag || key.ends_with(&format!("-{flag}")))
    });
    let Some(origin) = origin else {
        return error.into();
    };
    let reason = std::error::Error::source(&error)
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    clap::Error::raw(
        error.kind(),
        format!(
            "invalid value '{value}' for '{argument}'{reason} (from `{}` in {})\n",
            origin.key(),
            file.display()
        ),
    )
    .into()
}
