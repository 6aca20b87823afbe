//! The traits for sealing and opening personal data: the domain says what is sealed and for which place, and an implementation that holds the key
//! does it.

/// Seals and opens with one key. What was sealed for a place opens in that place alone.
pub trait Seals {
    /// Seals `plain` for a place.
    fn seal(&self, plain: &[u8], place: &str) -> String;

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// When it is no sealed text, or another key sealed it, or for another place.
    fn open(&self, sealed: &str, place: &str) -> Result<Vec<u8>, OpenError>;
}

/// One subject's key, as far as it is known.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// The key and the same wrapped.
    Here(&'a dyn Seals, &'a str),
    /// The subject has been erased, and that is proven.
    Erased,
    /// It has not come, or does not open with the key of the services: why.
    Missing(&'a str),
}

/// Why a sealed text does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not a sealed text of a known version.
    #[error("not a sealed text of version 1")]
    Malformed,
    /// Another key sealed it, for another place, or it was changed.
    #[error("the sealed text does not open with this key in this place")]
    Refused,
}
