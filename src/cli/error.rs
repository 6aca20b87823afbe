//! How a failure is told: one sentence on standard error, and a status that is not zero.

use std::process::ExitCode;

use clap::error::ErrorKind;

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
    eprintln!("tandem: {}", sentence(&problem.render().to_string()));
    ExitCode::from(USAGE)
}

/// Tells why the command failed, with its causes.
pub(super) fn report(problem: &anyhow::Error) -> ExitCode {
    eprintln!("tandem: {problem:#}");
    ExitCode::FAILURE
}

/// The first part of clap's message, before the usage, as one line.
fn sentence(message: &str) -> String {
    message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join(" ")
}
