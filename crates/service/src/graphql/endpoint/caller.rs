//! The caller of an operation, as resolvers find it.

use std::sync::Arc;

/// The caller; resolvers find it in the request's data. Recorded as `changedBy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Arc<str>);

impl Caller {
    /// A caller known by name: a token's subject.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// A caller that brought no credentials.
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
