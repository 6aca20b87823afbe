//! The size limits of documents. A document beyond them is refused after a cheap scan.

/// The size limits of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentLimits {
    /// The most tokens.
    pub tokens: usize,
    /// The deepest nesting of selections and values for the parser.
    pub recursion: usize,
    /// The deepest nesting of fields.
    pub depth: usize,
    /// The most fields, with fragments expanded.
    pub fields: u64,
    /// The most fields of the answer, see `Cost`.
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
