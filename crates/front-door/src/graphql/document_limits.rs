//! How large a document may be: what is larger is refused before it costs more than to be looked at.

/// How large a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Tokens.
    pub tokens: usize,
    /// Selections and values inside each other while parsing.
    pub recursion: usize,
    /// Fields inside each other.
    pub depth: usize,
    /// Fields, with fragments in place.
    pub fields: u64,
    /// Fields of the answer, see `Cost`.
    pub cost: u64,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            tokens: 5_000,
            recursion: 40,
            depth: 15,
            fields: 5_000,
            cost: 50_000,
        }
    }
}
