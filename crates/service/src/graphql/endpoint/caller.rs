//! The caller of an operation, for resolvers.

use std::sync::Arc;

/// The caller. Resolvers find it in the request's data. It is recorded as `changedBy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Arc<str>);

impl Caller {
    /// A caller with a name, which is the subject of a token.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// A caller without credentials.
    pub fn anonymous() -> Self {
        Self::new("anonymous")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::anonymous()
    }
}
