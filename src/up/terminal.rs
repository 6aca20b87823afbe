//! What the user of `up` sees: lines on standard output, and a spinner while something takes long.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::lines;

/// Where `up` reports what it does. Clones share the spinner.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    spinner: ProgressBar,
    interactive: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        let interactive = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let target = if interactive {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let spinner = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        Self {
            spinner,
            interactive,
        }
    }

    /// Writes one line and flushes it.
    pub(super) fn say(&self, line: &str) {
        self.write(&lines(line));
    }

    fn write(&self, line: &str) {
        self.spinner.suspend(|| {
            let mut output = std::io::stdout().lock();
            // A failure means that nobody reads the output. The system must run on.
            let _ = writeln!(output, "{line}").and_then(|()| output.flush());
        });
    }

    /// Writes an important line: with empty lines around it, and green where there are colours.
    pub(super) fn announce(&self, line: &str) {
        // https://no-color.org
        let has_colours = self.interactive
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        if self.interactive {
            self.say("");
        }
        match line.split_once(' ') {
            Some((first, rest)) if has_colours => {
                let (first, rest) = (lines(first), lines(rest));
                self.write(&format!("\x1b[1;32m{first}\x1b[0;1m {rest}\x1b[0m"));
            }
            _ => self.say(line),
        }
    }

    /// Shows what `up` is waiting for: with the spinner, or with a line where there is no terminal.
    pub(super) fn progress(&self, message: &str) {
        if self.interactive {
            self.spinner.set_message(message.to_owned());
            self.spinner.enable_steady_tick(Duration::from_millis(100));
        } else {
            self.say(message);
        }
    }

    /// Removes the spinner.
    pub(super) fn finish_progress(&self) {
        self.spinner.finish_and_clear();
    }
}
