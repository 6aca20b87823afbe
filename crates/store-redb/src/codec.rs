//! Encodes every record of the embedded store. Everything that protects data at rest is here.
//!
//! redb keeps the bytes of freed pages until they are reused, so deleted data can still be in the file. A sealed record
//! begins with a byte that no JSON begins with, so that plain records of older files are still readable.

use serde::{Serialize, de::DeserializeOwned};

use tandem_event_path::{sealing::Sealer, store::StoreError};

/// The first byte of a sealed record.
const SEALED: u8 = 1;

/// Converts values to stored bytes (JSON, sealed or plain) and back.
#[derive(Clone, Debug)]
pub struct Codec(Option<Sealer>);

impl Codec {
    /// Writes records as plain JSON: for stores without personal data, and for measurements.
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    /// Seals records with a key that is derived from this one. Plain records are readable too.
    #[must_use]
    pub fn sealed(service: &Sealer) -> Self {
        Self::with_key(&Self::derived(service))
    }

    /// Seals records with keys that are derived from this one. Plain records are readable too.
    #[must_use]
    pub fn with_key(key: &[u8; 32]) -> Self {
        Self(Some(Sealer::new(key)))
    }

    /// The key of stores that were created before each store had its own key.
    #[must_use]
    pub fn derived(service: &Sealer) -> [u8; 32] {
        service.derive("embedded store")
    }

    /// The bytes to store. `owner` is the id of the record's aggregate.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the value has no JSON form.
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

    /// The value of stored bytes. `owner` must be the same as for encoding.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the bytes are not a record of this kind.
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

/// A separate key for each owner. A single key would seal more records in its life than random nonces allow, which is
/// 2^32 (NIST SP 800-38D).
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
