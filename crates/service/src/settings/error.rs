//! Errors of the configuration, each with a complete message.

use std::fmt;
use std::path::PathBuf;

/// Why the configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is not valid TOML.
    #[error("the configuration file {} is not TOML: {message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The place and the reason.
        message: String,
    },
    /// The file has a key that matches no setting.
    #[error("the configuration file {} has the unknown key `{key}`{}", path.display(), Nearest(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// The known key that is most similar.
        nearest: Option<String>,
    },
    /// The file has a value of a kind that the setting does not accept.
    #[error("the configuration file {} has {found} for `{key}`; write {expected}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// The kind that the file has.
        found: &'static str,
        /// The kind that would be right.
        expected: &'static str,
    },
    /// A flag, a variable or a value of the file is invalid. `--help` and `--version` come here too.
    #[error("{0}")]
    Arguments(#[from] clap::Error),
}

struct Nearest<'a>(Option<&'a str>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(formatter, "; did you mean `{key}`?"),
            None => formatter.write_str("; --help lists the settings"),
        }
    }
}

impl SettingsError {
    /// Prints the error (or the requested help) and ends the process, as clap does.
    pub fn exit(self) -> ! {
        match self {
            Self::Arguments(error) => error.exit(),
            other => {
                clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{other}\n")).exit()
            }
        }
    }
}
