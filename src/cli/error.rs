//! How a failure is told: one sentence on standard error, and a status that is not zero.

use std::process::ExitCode;

use clap::error::ErrorKind;
use tandem_service::settings::SettingsError;

use crate::terminal::say_aside;

/// The status after a wrong flag or setting.
const USAGE: u8 = 2;

/// Tells what is wrong with the arguments, or prints the help that was asked for.
pub(super) fn report_usage(problem: &clap::Error) -> ExitCode {
    if matches!(
        problem.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // Nothing can be done when standard output is closed.
        let _ = problem.print();
        return ExitCode::SUCCESS;
    }
    if problem.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A command that needs another word: its help says which there are.
        let _ = problem.print();
        return ExitCode::from(USAGE);
    }
    let sentence = sentence(&problem.render().to_string());
    match problem.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::MissingRequiredArgument => {
            tell(&format!("{sentence}; --help tells what there is"));
        }
        _ => tell(&sentence),
    }
    ExitCode::from(USAGE)
}

/// Tells what has no effect; the command goes on.
pub(super) fn warn(sentence: &str) {
    tell(&format!("warning: {sentence}"));
}

/// Tells what is wrong with the configuration file.
pub(super) fn report_settings(problem: &SettingsError) -> ExitCode {
    tell(&one_line(&problem.to_string()));
    ExitCode::from(USAGE)
}

/// Tells why the command failed, with its causes.
pub(super) fn report(problem: &anyhow::Error) -> ExitCode {
    let mut told = problem.to_string();
    for cause in problem.chain().skip(1).map(ToString::to_string) {
        // Many messages quote their cause.
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    tell(&told);
    ExitCode::FAILURE
}

fn tell(sentence: &str) {
    say_aside(&format!("tandem: {sentence}"));
}

/// The first part of clap's message, before the usage, as one line.
fn sentence(message: &str) -> String {
    let end = message
        .find("\nUsage:")
        .or_else(|| message.find("\nFor more information"));
    let first = message
        .get(..end.unwrap_or(message.len()))
        .unwrap_or(message);
    one_line(first.strip_prefix("error: ").unwrap_or(first)).replace(" tip: ", "; ")
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
