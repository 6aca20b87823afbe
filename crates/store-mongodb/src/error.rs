//! Classifies errors of the driver: transient ones, retryable ones, and corrupt data.

use mongodb::error::{Error, ErrorKind, RETRYABLE_ERROR, RETRYABLE_WRITE_ERROR};

use super::reason::sentence;
use tandem_event_path::store::StoreError;

/// Why the connection cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection string, or something that it names, is invalid.
    #[error(
        "the MongoDB connection string cannot be used: {0}; it should look like mongodb://host:27017/?replicaSet=name or mongodb+srv://user:password@host"
    )]
    Uri(String),
    /// A `mongodb+srv` name could not be resolved. A later attempt may succeed.
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

/// Separates transient errors from documents that cannot be read. For `map_err` on calls of the driver.
pub fn away(error: Error) -> StoreError {
    match *error.kind {
        ErrorKind::Bson(_) | ErrorKind::InvalidResponse { .. } => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Unavailable(sentence(&error)),
    }
}

/// Error codes after which the same command may succeed: no primary, a primary that steps down or shuts down, a network
/// failure between the members, a time limit, a conflict. It is the drivers' list of retryable writes, and the limits.
const PASSING: [i32; 19] = [
    6, 7, 24, 50, 64, 89, 91, 112, 134, 189, 202, 262, 9001, 10058, 10107, 11600, 11602, 13435,
    13436,
];

pub(super) fn is_passing_code(code: i32) -> bool {
    PASSING.contains(&code)
}

/// Whether the same command may succeed when it is sent again. It may have been executed all the same.
pub(super) fn is_passing(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. } => true,
        ErrorKind::Command(command) if is_passing_code(command.code) => true,
        _ => error.contains_label(RETRYABLE_WRITE_ERROR) || error.contains_label(RETRYABLE_ERROR),
    }
}
