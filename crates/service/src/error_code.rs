//! What kind of error an API answers with: `extensions.code` in GraphQL. Those that every service has; what only one service has is
//! defined beside its domain.

use std::fmt;

/// A code. Clients rely on these; none may be renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub &'static str);

impl ErrorCode {
    /// An argument or input field is wrong; `extensions.field` says which.
    pub const BAD_USER_INPUT: Self = Self("BAD_USER_INPUT");
    /// What was asked for does not exist.
    pub const NOT_FOUND: Self = Self("NOT_FOUND");
    /// What was to be created exists.
    pub const ALREADY_EXISTS: Self = Self("ALREADY_EXISTS");
    /// The expected revision is not the present one.
    pub const REVISION_CONFLICT: Self = Self("REVISION_CONFLICT");
    /// The idempotency key was used for a request with another input.
    pub const IDEMPOTENCY_KEY_REUSED: Self = Self("IDEMPOTENCY_KEY_REUSED");
    /// No valid credentials.
    pub const UNAUTHENTICATED: Self = Self("UNAUTHENTICATED");
    /// Valid credentials, not enough rights.
    pub const FORBIDDEN: Self = Self("FORBIDDEN");
    /// What was asked for, or what the asker wrote, is not shown here yet.
    pub const REPLICA_BEHIND: Self = Self("REPLICA_BEHIND");
    /// A store or Kafka is away; asking again later may work.
    pub const UNAVAILABLE: Self = Self("UNAVAILABLE");
    /// An accident; the service's log says which.
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
