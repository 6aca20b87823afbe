//! Where a service keeps its data.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

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
}
