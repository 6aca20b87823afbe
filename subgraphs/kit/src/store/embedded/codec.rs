//! How a value becomes the bytes of a record, for every record of the embedded store: what is done to bytes at rest is done here.

use serde::{Serialize, de::DeserializeOwned};

use crate::store::StoreError;

/// Turns values into stored bytes (JSON) and back.
#[derive(Clone, Debug, Default)]
pub struct Codec;

impl Codec {
    /// The bytes to store. `owner` is the id of the aggregate that the record belongs to.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the value has no JSON form.
    pub fn encode<T: Serialize>(&self, owner: &str, value: &T) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(value).map_err(|error| {
            StoreError::Corrupt(format!("a record of {owner:?} cannot be written: {error}"))
        })
    }

    /// The value of stored bytes. `owner` is the one that they were encoded for.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are not a record of this kind.
    pub fn decode<T: DeserializeOwned>(&self, owner: &str, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| {
            StoreError::Corrupt(format!("a record of {owner:?} cannot be read: {error}"))
        })
    }
}
