//! `tandem schema check`: whether clients of an old schema, and readers and writers of old events, can work with a new
//! one.

mod events;
mod graphql;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use tandem_front_door::graphql::GraphSchema;

use crate::terminal::{one_line, tell};

/// What to compare.
#[derive(Args, Clone, Debug)]
pub(super) struct CheckSettings {
    /// What was promised: a GraphQL schema (`.graphql`), a JSON Schema of events (`.json`), or a folder with both, such as schema/released.
    old: PathBuf,
    /// What is to be promised: the same kind.
    new: PathBuf,
    /// Folder of operations (`*.graphql`) that clients send; each must be valid against the new supergraph, or the new schema where that is a
    /// file.
    #[arg(long, value_name = "FOLDER")]
    documents: Option<PathBuf>,
}

/// What a change means for users of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Something that is valid or understood today no longer is.
    Breaking,
    /// It stays valid, but may be answered in a way that its sender does not expect.
    Dangerous,
    /// Nobody has to do anything.
    Safe,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Breaking => "BREAKING",
            Self::Dangerous => "dangerous",
            Self::Safe => "safe",
        })
    }
}

/// A change, and what it means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Its place: `Customer.name`, or a pointer into a JSON document.
    pub(super) place: String,
    /// What changed.
    pub(super) what: String,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        place: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            place: place.into(),
            what: what.into(),
        }
    }
}

/// Compares the schemas and prints the findings, the worst first.
///
/// # Errors
/// When a file cannot be read or is not a schema, and when a change is breaking.
pub(super) fn check(settings: &CheckSettings) -> anyhow::Result<()> {
    let (old, new) = (files(&settings.old)?, files(&settings.new)?);
    let mut findings = Vec::new();
    for (name, old) in &old {
        let found = match new.get(name) {
            Some(new) => compared(old, new)?,
            None => vec![Finding::new(
                Severity::Breaking,
                "",
                "is not there any more",
            )],
        };
        findings.extend(found.into_iter().map(|finding| (name.clone(), finding)));
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        let finding = Finding::new(Severity::Safe, "", "is new");
        findings.push((name.clone(), finding));
    }
    let mut documents = 0;
    if let Some(folder) = &settings.documents {
        let schema = schema_of_documents(&new)?;
        for (name, file) in files(folder)? {
            if !is_graphql(&file) {
                continue;
            }
            documents += 1;
            if let Err(error) = schema.validate(&read(&file)?) {
                let finding = Finding::new(Severity::Breaking, "", error.to_string());
                findings.push((name, finding));
            }
        }
    }
    findings.sort_by(|(a_file, a), (b_file, b)| {
        (a.severity, a_file, &a.place).cmp(&(b.severity, b_file, &b.place))
    });
    let count = |severity| {
        findings
            .iter()
            .filter(|(_, it)| it.severity == severity)
            .count()
    };
    let breaking = count(Severity::Breaking);
    for (file, finding) in &findings {
        tell(&line(file, finding));
    }
    tell(&format!(
        "{breaking} breaking, {} dangerous, {} safe; {} schemas compared, {documents} operations looked at",
        count(Severity::Dangerous),
        count(Severity::Safe),
        old.len(),
    ));
    if breaking > 0 {
        bail!(
            "{breaking} changes break what is in use: keep what there was and deprecate it, or give events a new version (docs/events.md)"
        );
    }
    Ok(())
}

/// A finding as a line for a terminal. It is escaped: names, places and texts come from files that anybody may have
/// written.
fn line(file: &str, finding: &Finding) -> String {
    let Finding {
        severity,
        place,
        what,
    } = finding;
    let space = if place.is_empty() { "" } else { " " };
    let line = format!("{severity:<9}  {file}: {place}{space}{what}");
    one_line(&line).into_owned()
}

/// The schemas by name: a single file, or the schemas in a folder under their file names.
fn files(path: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    if !path.is_dir() {
        // One name for both sides, because two files may have different names and hold the same schema.
        return Ok(BTreeMap::from([("schema".to_owned(), path.to_owned())]));
    }
    let mut found = BTreeMap::new();
    for (folder, prefix) in [(path.to_owned(), ""), (path.join("events"), "events/")] {
        if !folder.is_dir() {
            continue;
        }
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("{} cannot be read", folder.display()))?;
        for entry in entries {
            let file = entry?.path();
            let is_schema =
                is_graphql(&file) || (!prefix.is_empty() && has_extension(&file, "json"));
            if is_schema && let Some(name) = file.file_name() {
                found.insert(format!("{prefix}{}", name.to_string_lossy()), file);
            }
        }
    }
    if found.is_empty() {
        bail!(
            "{} has no schema: expected *.graphql, and events/*.json",
            path.display()
        );
    }
    Ok(found)
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|it| it == extension)
}

fn is_graphql(file: &Path) -> bool {
    has_extension(file, "graphql")
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn compared(old: &Path, new: &Path) -> anyhow::Result<Vec<Finding>> {
    let (was, is) = (read(old)?, read(new)?);
    if is_graphql(old) {
        graphql::compare(&was, &is).with_context(|| both(old, new))
    } else {
        let parse = |text: &str, file: &Path| {
            serde_json::from_str(text).with_context(|| format!("{} is no JSON", file.display()))
        };
        Ok(events::compare(&parse(&was, old)?, &parse(&is, new)?))
    }
}

fn both(old: &Path, new: &Path) -> String {
    format!("{} and {} cannot be compared", old.display(), new.display())
}

fn schema_of_documents(new: &BTreeMap<String, PathBuf>) -> anyhow::Result<GraphSchema> {
    let file = new
        .get("supergraph.graphql")
        .or_else(|| new.get("schema"))
        .context("--documents needs the new supergraph.graphql, or a schema that is a file")?;
    GraphSchema::from_sdl(&read(file)?).with_context(|| format!("{} is no schema", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_shown_and_not_obeyed() {
        let finding = Finding::new(Severity::Safe, "a\u{1b}[2Jb", "is\nsafe       x: new");
        let shown = line("c\u{202e}d.graphql", &finding);
        assert!(!shown.chars().any(char::is_control), "{shown}");
        assert!(!shown.contains('\u{202e}'), "{shown}");
        assert!(shown.starts_with("safe       c\\u{202e}d.graphql: a\\u{1b}[2Jb is\\nsafe"));
    }
}
