//! Reads the TOML file as entries: each value with the path of its keys.

use std::path::Path;

use super::error::SettingsError;

/// One value of the file.
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    pub(super) value: toml::Value,
}

impl Entry {
    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }
}

pub(super) fn read_file(path: &Path) -> Result<Vec<Entry>, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let table: toml::Table =
        text.parse()
            .map_err(|error: toml::de::Error| SettingsError::NotToml {
                path: path.to_owned(),
                message: place_and_reason(&text, &error),
            })?;
    let mut entries = Vec::new();
    flatten(&mut Vec::new(), table, &mut entries);
    Ok(entries)
}

/// Where the file is not valid TOML, and why. The line itself, which toml's own message shows, is left out: it may
/// contain a password.
fn place_and_reason(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else {
        return error.message().to_owned();
    };
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |last| last.chars().count())
        + 1;
    format!("line {line}, column {column}: {}", error.message())
}

fn flatten(prefix: &mut Vec<String>, table: toml::Table, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        prefix.push(key);
        match value {
            toml::Value::Table(inner) => flatten(prefix, inner, entries),
            value => entries.push(Entry {
                path: prefix.clone(),
                value,
            }),
        }
        prefix.pop();
    }
}

pub(super) fn single_text(file: &Path, entry: &Entry) -> Result<String, SettingsError> {
    text_of(file, entry, &entry.value)
}

pub(super) fn text_of(
    file: &Path,
    entry: &Entry,
    value: &toml::Value,
) -> Result<String, SettingsError> {
    let found = match value {
        toml::Value::String(text) => return Ok(text.clone()),
        toml::Value::Integer(number) => return Ok(number.to_string()),
        toml::Value::Float(number) => return Ok(number.to_string()),
        toml::Value::Boolean(flag) => return Ok(flag.to_string()),
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    };
    Err(SettingsError::WrongKind {
        path: file.to_owned(),
        key: entry.key(),
        found,
        expected: "one text, number or true/false",
    })
}
