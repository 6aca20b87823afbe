//! Runs the operator's commands the way an operator does.

use std::time::Duration;

use super::{Process, Tandem, tandem_command};

/// Time limit for an operator's command.
const LIMIT: Duration = Duration::from_secs(120);

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Said {
    pub succeeded: bool,
    pub output: String,
    pub errors: String,
}

impl Said {
    /// Waits for the end of a command and returns its result.
    #[track_caller]
    pub fn of(mut process: Process) -> Self {
        let status = process.wait_for_end(LIMIT);
        let (output, errors) = process.all_output();
        Self {
            succeeded: status.success(),
            output,
            errors,
        }
    }
}

impl Tandem {
    /// Starts a command such as `rebuild orders` on this system.
    pub fn begin(&self, words: &[&str]) -> Process {
        let key = self.data_dir().join("sealing.key");
        Process::start(
            tandem_command()
                .args(words)
                .env("TANDEM_ACCOUNTS_URL", self.accounts_url(""))
                .env("TANDEM_ORDERS_URL", self.orders_url(""))
                .env("TANDEM_KAFKA_BROKERS", self.bootstrap_servers())
                .env("TANDEM_SEALING_KEY_FILE", key),
        )
    }

    /// Runs an operator's command to its end.
    #[track_caller]
    pub fn operate(&self, words: &[&str]) -> Said {
        Said::of(self.begin(words))
    }

    /// Runs a command that must succeed and returns its output.
    #[track_caller]
    pub fn operated(&self, words: &[&str]) -> String {
        let said = self.operate(words);
        assert!(said.succeeded, "{words:?}: {said:#?}");
        said.output
    }
}
