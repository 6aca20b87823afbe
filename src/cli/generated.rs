//! `tandem completions` and `tandem man`: shell completions and manual pages, generated from the commands.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::terminal::print;

/// For which shell.
#[derive(Args, Clone, Debug)]
pub(super) struct CompletionsSettings {
    /// Which one.
    shell: Shell,
}

/// Which pages, and where to.
#[derive(Args, Clone, Debug)]
pub(super) struct ManSettings {
    /// Write the pages of all commands into this folder, which is made if it is not there: tandem.1, tandem-up.1 and so on. Without it
    /// tandem.1 alone is printed.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Prints the completion script of a shell.
pub(super) fn completions(settings: &CompletionsSettings, mut command: Command) {
    let mut script = Vec::new();
    clap_complete::generate(settings.shell, &mut command, "tandem", &mut script);
    print(&script);
}

/// Prints or writes manual pages.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn man(settings: &ManSettings, command: Command) -> anyhow::Result<()> {
    let Some(folder) = &settings.to else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        print(&page);
        return Ok(());
    };
    let unwritten = || format!("{} cannot be written", folder.display());
    std::fs::create_dir_all(folder).with_context(unwritten)?;
    clap_mangen::generate_to(command, folder).with_context(unwritten)
}
