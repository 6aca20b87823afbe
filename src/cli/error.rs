//! Reports a failure: one sentence on standard error, and a non-zero exit status.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use tandem_service::settings::SettingsError;

use crate::terminal::{note, say_aside};

/// The exit status for a wrong flag or setting.
const USAGE: u8 = 2;

/// Reports what is wrong with the arguments, or prints the requested help.
pub(super) fn report_usage(problem: &clap::Error) -> ExitCode {
    if matches!(
        problem.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        note(problem.print());
        return ExitCode::SUCCESS;
    }
    if problem.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The command lacks a subcommand. Its help lists them.
        let _ = problem.print();
        return ExitCode::from(USAGE);
    }
    let message = problem.render().to_string();
    let sentence = sentence(&message);
    if let Some(number) = number_below_zero(problem) {
        let command = command_of(&message);
        tell(&format!(
            "no setting here takes a number below 0, as {number} is; {}",
            help(&command)
        ));
        return ExitCode::from(USAGE);
    }
    match problem.kind() {
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::UnknownArgument => {
            let command = command_of(&message);
            // A word after a subcommand such as `tandem audit` is not meant as a command.
            let meant = unknown_word(problem)
                .filter(|_| command == "tandem")
                .and_then(|word| Some((word, what_was_meant(word)?)));
            match meant {
                Some((word, meant)) => tell(&format!("there is no command `{word}`: {meant}")),
                None => tell(&format!("{sentence}; {}", help(&command))),
            }
        }
        _ => tell(&sentence),
    }
    ExitCode::from(USAGE)
}

/// A negative number, which clap takes for a flag. Its advice does not help then.
fn number_below_zero(problem: &clap::Error) -> Option<&str> {
    match problem.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if problem.kind() == ErrorKind::UnknownArgument => {
            let digits = word.strip_prefix('-')?;
            digits
                .starts_with(|first: char| first.is_ascii_digit())
                .then_some(word.as_str())
        }
        _ => None,
    }
}

/// The word in place of a command.
fn unknown_word(problem: &clap::Error) -> Option<&str> {
    match problem.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    }
}

/// The equivalent here of a command that other programs have.
fn what_was_meant(word: &str) -> Option<&'static str> {
    Some(match word {
        "start" | "run" | "serve" => "`tandem up` starts everything",
        "stop" | "down" | "kill" => {
            "Ctrl-C in the terminal of `tandem up`, or SIGTERM to its process, stops everything; `tandem doctor` names that process"
        }
        "status" | "ps" | "health" => "`tandem doctor` says what runs and how it is",
        "logs" => "the logs of what `tandem up` runs are files in .tandem/logs",
        _ => return None,
    })
}

/// The command whose usage clap's message shows, such as `tandem audit customer`.
fn command_of(message: &str) -> String {
    let usage = message.split("Usage: ").nth(1).unwrap_or_default();
    let words: Vec<&str> = usage
        .split_whitespace()
        .take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        .collect();
    words.join(" ")
}

/// Says where to find the right words.
fn help(command: &str) -> String {
    if command.is_empty() {
        return "--help tells what there is".to_owned();
    }
    format!("`{command} --help` tells what there is")
}

/// Reports something that has no effect. The command continues.
pub(super) fn warn(sentence: &str) {
    tell(&format!("warning: {sentence}"));
}

/// Reports what is wrong with the configuration file.
pub(super) fn report_settings(problem: &SettingsError) -> ExitCode {
    tell(&one_line(&problem.to_string()));
    ExitCode::from(USAGE)
}

/// Reports that the output could not be written, and why.
pub(super) fn report_unwritten(reason: &std::io::Error) -> ExitCode {
    tell(&format!("standard output cannot be written: {reason}"));
    ExitCode::FAILURE
}

/// Reports why the command failed, with its causes.
pub(super) fn report(problem: &anyhow::Error) -> ExitCode {
    let mut told = problem.to_string();
    for cause in problem.chain().skip(1).map(ToString::to_string) {
        // Many messages already quote their cause.
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

/// The first part of clap's message, before the usage, on one line.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_below_zero_is_told_from_a_flag() {
        let command = || {
            clap::Command::new("tandem").arg(
                clap::Arg::new("number")
                    .long("number")
                    .value_parser(clap::value_parser!(u64)),
            )
        };
        let refused = |arguments: [&str; 3]| command().try_get_matches_from(arguments).err();
        let below = refused(["tandem", "--number", "-1"]);
        assert_eq!(below.as_ref().and_then(number_below_zero), Some("-1"));
        let other = refused(["tandem", "--number", "--other"]);
        assert_eq!(other.as_ref().and_then(number_below_zero), None);
    }

    #[test]
    fn the_help_that_is_named_is_that_of_the_command() {
        for (usage, expected) in [
            ("tandem up [OPTIONS]", "tandem up"),
            ("tandem audit customer <ID>", "tandem audit customer"),
            ("tandem up --gateway-port <PORT>", "tandem up"),
            ("tandem [OPTIONS] [COMMAND]", "tandem"),
        ] {
            let message =
                format!("error: x\n\nUsage: {usage}\n\nFor more information, try '--help'.\n");
            assert_eq!(command_of(&message), expected);
        }
        assert_eq!(help(&command_of("error: x")), "--help tells what there is");
    }
}
