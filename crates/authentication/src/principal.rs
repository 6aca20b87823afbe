//! Who a verified token speaks for.

use std::sync::Arc;

use crate::scope::{Scope, Scopes};

/// The bearer of a verified token. Clones share the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The claim `sub`, with its issuer before it (`ISSUER|SUBJECT`) unless that is the first of those that are trusted; recorded as
    /// `changedBy`.
    pub subject: Arc<str>,
    /// What the token allows.
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

    /// Whether this is the customer of that id, with a token for what is their own.
    #[must_use]
    pub fn is_customer(&self, customer_id: &str) -> bool {
        self.has(Scope::Own) && *self.subject == *customer_id
    }
}
