//! Why the file of the log could not be used.

/// A file that cannot be written or read. Everything in the transaction is given up.
pub(crate) type Failure = redb::Error;
