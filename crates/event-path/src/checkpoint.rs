//! A fingerprint that identifies a message in the log, so that it can later be checked whether the message is still
//! there.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tandem_model::message::Message;

/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 32;

/// The last message of a partition that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its offset.
    pub offset: i64,
    /// Identifies the message: SHA-256 of its key, its `ce_id` and its body, truncated to 128 bits.
    pub fingerprint: String,
}

impl Checkpoint {
    /// The checkpoint of a message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let mut digest = Sha256::new();
        let parts = [
            message.key.as_deref().map(str::as_bytes),
            message.header("ce_id").map(str::as_bytes),
            message.payload.as_deref(),
        ];
        for part in parts {
            // Each part is preceded by its length, so that no two messages hash the same bytes.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            digest.update(length.to_be_bytes());
            digest.update(part.unwrap_or_default());
        }
        let mut fingerprint = format!("{:x}", digest.finalize());
        fingerprint.truncate(DIGITS);
        Self {
            offset: message.position.offset,
            fingerprint,
        }
    }
}
