//! The caller that a verified token identifies.

use std::sync::Arc;

use crate::scope::{Scope, Scopes};

/// The bearer of a verified token. Clones share the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The claim `sub`. Unless the token is from the first trusted issuer, its issuer is put before it
    /// (`ISSUER|SUBJECT`). It is recorded as `changedBy`.
    pub subject: Arc<str>,
    /// The scopes of the token.
    pub scopes: Scopes,
    /// The claim `exp`: seconds since 1970 (RFC 7519, section 4.1.4).
    pub expires_at: u64,
}

impl Principal {
    /// Whether the token has this scope.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    /// Whether this is the customer with that id, and the token has the scope for the caller's own data.
    #[must_use]
    pub fn is_customer(&self, customer_id: &str) -> bool {
        self.has(Scope::Own) && *self.subject == *customer_id
    }
}
