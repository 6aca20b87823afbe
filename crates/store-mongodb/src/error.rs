//! Which errors of the driver may pass, which may be tried again, and which are damage.

use mongodb::error::{Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR};

use super::reason::sentence;
use tandem_event_path::store::StoreError;

/// Why there is no connection to set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string, or something it names, does not fit.
    #[error(
        "the MongoDB connection string cannot be used: {0}; it should look like mongodb://host:27017/?replicaSet=name or mongodb+srv://user:password@host"
    )]
    Uri(String),
    /// A `mongodb+srv` name could not be looked up; asking again later may work.
    #[error("the hosts of the MongoDB connection string cannot be looked up: {0}")]
    Lookup(String),
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        match *error.kind {
            ErrorKind::DnsResolve { .. } | ErrorKind::Io(_) => Self::Lookup(error.kind.to_string()),
            _ => Self::Uri(error.kind.to_string()),
        }
    }
}

/// Tells what may pass from documents that cannot be read, for `map_err` on calls of the driver.
pub fn away(error: Error) -> StoreError {
    match *error.kind {
        ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. } => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Away(sentence(&error)),
    }
}

/// Codes after which the same command may work: no primary, a primary that steps down or shuts down, a network between
/// the members that fails, a time limit, a conflict. The list of the drivers' retryable writes, and the limits.
const PASSING: [i32; 19] = [
    6, 7, 24, 50, 64, 89, 91, 112, 134, 189, 202, 262, 9001, 10058, 10107, 11600, 11602, 13435,
    13436,
];

pub(super) fn is_passing_code(code: i32) -> bool {
    PASSING.contains(&code)
}

/// Whether the same command may work when sent again. It may have been carried out all the same.
pub(super) fn is_passing(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. } => true,
        ErrorKind::Command(command) if is_passing_code(command.code) => true,
        _ => error.contains_label(RETRYABLE_WRITE_ERROR) || error.contains_label(RETRYABLE_ERROR),
    }
}
