//! The settings that say where a service keeps its data.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use tandem_event_path::rebuild::TruncatedLog;

/// The embedded store in a directory, or MongoDB when its address is given.
#[derive(Args, Clone, Debug)]
pub struct StoreSettings {
    /// Directory of the embedded store's file.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem"
    )]
    pub data_dir: PathBuf,

    /// MongoDB connection string; without it the embedded store is used. Keep its password out of the command line: use the environment.
    #[arg(
        long,
        env = "TANDEM_MONGODB_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    pub mongodb_uri: Option<SecretString>,

    /// Fill a new store from a log that has lost its beginning, and take what is left for all there ever was. Whoever the log told of
    /// before is then unknown, and their ids may be given a second time.
    #[arg(long, env = "TANDEM_ACCEPT_TRUNCATED_LOG")]
    pub accept_truncated_log: bool,
}

impl StoreSettings {
    /// What to do when a new store meets a log that has lost its beginning.
    #[must_use]
    pub fn truncated_log(&self) -> TruncatedLog {
        if self.accept_truncated_log {
            TruncatedLog::Accepted
        } else {
            TruncatedLog::Refused
        }
    }
}
