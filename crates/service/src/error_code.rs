//! The error codes of an API (`extensions.code` in GraphQL) that every service uses. A code that only one service uses
//! is defined beside its domain.

use std::fmt;

/// A code. Clients depend on the codes, so none may be renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub &'static str);

impl ErrorCode {
    /// An argument or input field is wrong; `extensions.field` says which.
    pub const BAD_USER_INPUT: Self = Self("BAD_USER_INPUT");
    /// The requested object does not exist.
    pub const NOT_FOUND: Self = Self("NOT_FOUND");
    /// The object to create exists already.
    pub const ALREADY_EXISTS: Self = Self("ALREADY_EXISTS");
    /// The expected revision is not the current one.
    pub const REVISION_CONFLICT: Self = Self("REVISION_CONFLICT");
    /// The idempotency key was used before, for a request with different input.
    pub const IDEMPOTENCY_KEY_REUSED: Self = Self("IDEMPOTENCY_KEY_REUSED");
    /// The request has no valid credentials.
    pub const UNAUTHENTICATED: Self = Self("UNAUTHENTICATED");
    /// The credentials are valid, but do not give enough rights.
    pub const FORBIDDEN: Self = Self("FORBIDDEN");
    /// The replica does not show the requested object yet, or not yet what the caller wrote.
    pub const REPLICA_BEHIND: Self = Self("REPLICA_BEHIND");
    /// A store or Kafka is unavailable. A later attempt may succeed.
    pub const UNAVAILABLE: Self = Self("UNAVAILABLE");
    /// An internal error. The service's log has the cause.
    pub const INTERNAL: Self = Self("INTERNAL");

    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}
