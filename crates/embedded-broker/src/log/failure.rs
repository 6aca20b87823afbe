//! The error for the file of the log.

/// The file cannot be written or read. The transaction is aborted.
pub(crate) type Failure = redb::Error;
