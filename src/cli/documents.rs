//! `tandem documents manifest`: makes a gateway's manifest of trusted documents from a folder.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use tandem_front_door::graphql::manifest;

use crate::terminal::print;

/// What to do with documents.
#[derive(Args, Clone, Debug)]
pub(super) struct DocumentsSettings {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print the manifest of a folder's *.graphql files, for --trusted-documents and for clients.
    Manifest {
        /// The folder; each file has one operation with a name.
        folder: PathBuf,
    },
}

/// Prints the manifest.
///
/// # Errors
/// When a file cannot be read, or is not a document with one named operation.
pub(super) fn run(settings: &DocumentsSettings) -> anyhow::Result<()> {
    let Action::Manifest { folder } = &settings.action;
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "graphql")
        })
        .collect();
    files.sort();
    let documents = files
        .iter()
        .map(|file| {
            fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
        })
        .collect::<anyhow::Result<Vec<String>>>()?;
    let text =
        manifest(&documents).with_context(|| format!("{} does not fit", folder.display()))?;
    print(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_manifest_of_the_folder_queries_is_not_stale() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("queries");
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "graphql")
            })
            .collect();
        files.sort();
        let documents: Vec<String> = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let kept = fs::read_to_string(folder.join("manifest.json")).unwrap();
        assert_eq!(
            manifest(&documents).unwrap(),
            kept,
            "make it anew: tandem documents manifest queries > queries/manifest.json"
        );
    }
}
