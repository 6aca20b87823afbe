//! The traits for sealing and opening personal data. The domain decides what is sealed and for which place. An
//! implementation that holds the key does the sealing.

/// Seals and opens with one key. A text that was sealed for one place opens only in that place.
pub trait Seals {
    /// Seals `plain` for a place.
    fn seal(&self, plain: &[u8], place: &str) -> String;

    /// Opens a text that was sealed for a place.
    ///
    /// # Errors
    /// When the text is not a sealed text, or was sealed with another key or for another place.
    fn open(&self, sealed: &str, place: &str) -> Result<Vec<u8>, OpenError>;
}

/// The key of one subject, as far as it is known.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// The key, and the same key in its wrapped form.
    Here(&'a dyn Seals, &'a str),
    /// The subject is proven to be erased.
    Erased,
    /// The key has not arrived, or the key of the services does not open it. Holds the reason.
    Missing(&'a str),
}

/// Why a sealed text cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not a sealed text of a known version.
    #[error("not a sealed text of version 1")]
    Malformed,
    /// The text was sealed with another key or for another place, or was changed.
    #[error("the sealed text does not open with this key in this place")]
    Refused,
}
