//! The sealing and signing keys of a simulated system, and the keys that replace them.

use tandem_event_path::{
    sealing::Sealer,
    signing::{SigningKey, SigningKeyError},
};

/// The old sealing key, and the one that replaces it.
const SEALING_KEYS: [[u8; 32]; 2] = [[7; 32], [8; 32]];

/// The sealing keys with which processes are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealingKeys {
    /// Only the old key.
    Before,
    /// Both keys. The old one seals in some processes, the new one in others.
    Mixed,
    /// Both keys. The new one seals.
    NewFirst,
    /// Only the new key.
    NewAlone,
}

impl SealingKeys {
    /// The keys of the process with this number, for sealing and opening.
    pub(super) fn sealer(self, number: u64) -> Sealer {
        let [before, new] = SEALING_KEYS;
        match self {
            Self::Before => Sealer::new(&before),
            Self::Mixed if number.is_multiple_of(2) => Sealer::replacing(&before, &[new]),
            Self::Mixed | Self::NewFirst => Sealer::replacing(&new, &[before]),
            Self::NewAlone => new_sealer(),
        }
    }
}

/// Seals and opens with the new sealing key only.
#[must_use]
pub fn new_sealer() -> Sealer {
    Sealer::replacing(&SEALING_KEYS[1], &[])
}

/// The signing key of a service. Each service has its own, which all its instances share, and a new one that may
/// replace it.
///
/// # Errors
/// When the seed gives no valid key.
pub fn signing_key(service: &str, is_new: bool) -> Result<SigningKey, SigningKeyError> {
    SigningKey::from_seed(&[service.as_bytes()[0] + u8::from(is_new); 32])
}
