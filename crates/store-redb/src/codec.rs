//! How a value becomes the bytes of a record, for every record of the embedded store: what is done to bytes at rest is done here.
//!
//! redb keeps the bytes of freed pages until they are used again, so what was deleted can still be found in the file. A sealed
//! record begins with a byte that no JSON begins with, so that records of a file from before are read as they are.

use serde::{Serialize, de::DeserializeOwned};

use tandem_event_path::{sealing::Sealer, store::StoreError};

/// The first byte of a sealed record.
const SEALED: u8 = 1;

/// Turns values into stored bytes (JSON, sealed or plain) and back.
#[derive(Clone, Debug)]
pub struct Codec(Option<Sealer>);

impl Codec {
    /// Records are written as plain JSON: for a store of nothing personal, and for measuring.
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    /// Records are sealed with a key derived from this one. Plain records are read too.
    #[must_use]
    pub fn sealed(service: &Sealer) -> Self {
        Self::with_key(&Self::derived(service))
    }

    /// Records are sealed with keys derived from this one. Plain records are read too.
    #[must_use]
    pub fn with_key(key: &[u8; 32]) -> Self {
        Self(Some(Sealer::new(key)))
    }

    /// The key of stores from before they had keys of their own.
    #[must_use]
    pub fn derived(service: &Sealer) -> [u8; 32] {
        service.derive("embedded store")
    }

    /// The bytes to store. `owner` is the id of the aggregate that the record belongs to.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the value has no JSON form.
    pub fn encode<T: Serialize>(&self, owner: &str, value: &T) -> Result<Vec<u8>, StoreError> {
        let plain = serde_json::to_vec(value).map_err(|error| {
            StoreError::Corrupt(format!("a record of {owner:?} cannot be written: {error}"))
        })?;
        let Some(sealer) = &self.0 else {
            return Ok(plain);
        };
        let mut bytes = vec![SEALED];
        bytes.extend(of_owner(sealer, owner).seal_bytes(&plain, owner.as_bytes()));
        Ok(bytes)
    }

    /// The value of stored bytes. `owner` is the one that they were encoded for.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are not a record of this kind.
    pub fn decode<T: DeserializeOwned>(&self, owner: &str, bytes: &[u8]) -> Result<T, StoreError> {
        let unreadable = |reason: &dyn std::fmt::Display| {
            StoreError::Corrupt(format!("a record of {owner:?} cannot be read: {reason}"))
        };
        let read = match (bytes.split_first(), &self.0) {
            (Some((&SEALED, sealed)), Some(sealer)) => {
                let plain = of_owner(sealer, owner)
                    .open_bytes(sealed, owner.as_bytes())
                    .map_err(|error| unreadable(&error))?;
                serde_json::from_slice(&plain)
            }
            (Some((&SEALED, _)), None) => {
                return Err(unreadable(&"it is sealed, and no key is given"));
            }
            _ => serde_json::from_slice(bytes),
        };
        read.map_err(|error| unreadable(&error))
    }
}

/// A key of its own for each owner: one key alone would see more records in its life than random nonces are good for
/// (NIST SP 800-38D: 2^32).
fn of_owner(sealer: &Sealer, owner: &str) -> Sealer {
    Sealer::new(&sealer.derive(owner))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sealed_record_shows_nothing_and_opens_for_its_owner_alone() {
        let codec = Codec::sealed(&Sealer::new(&[7; 32]));
        let bytes = codec.encode("1", &"Ada Lovelace").unwrap();
        assert!(!bytes.windows(3).any(|part| part == b"Ada"));
        assert_eq!(codec.decode::<String>("1", &bytes).unwrap(), "Ada Lovelace");
        assert!(codec.decode::<String>("2", &bytes).is_err());
        assert!(Codec::plain().decode::<String>("1", &bytes).is_err());
        let other = Codec::sealed(&Sealer::new(&[8; 32]));
        assert!(other.decode::<String>("1", &bytes).is_err());
    }

    #[test]
    fn a_plain_record_of_an_older_file_is_read() {
        let bytes = Codec::plain().encode("1", &vec!["a", "b"]).unwrap();
        let codec = Codec::sealed(&Sealer::new(&[7; 32]));
        assert_eq!(
            codec.decode::<Vec<String>>("1", &bytes).unwrap(),
            ["a", "b"]
        );
    }
}
