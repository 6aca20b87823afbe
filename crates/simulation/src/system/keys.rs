//! The sealing and the signing keys of a simulated system, and those that take their place.

use tandem_event_path::{
    sealing::Sealer,
    signing::{SigningKey, SigningKeyError},
};

/// The sealing key of before, and the one that takes its place.
const SEALING_KEYS: [[u8; 32]; 2] = [[7; 32], [8; 32]];

/// Which sealing keys processes are started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealingKeys {
    /// The one of before alone.
    Before,
    /// Both; the one of before seals in some processes, the new one in others.
    Mixed,
    /// Both; the new one seals.
    NewFirst,
    /// The new one alone.
    NewAlone,
}

impl SealingKeys {
    /// What the process of this number seals and opens with.
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

/// What seals and opens with the new sealing key alone.
#[must_use]
pub fn new_sealer() -> Sealer {
    Sealer::replacing(&SEALING_KEYS[1], &[])
}

/// Each service has a signing key of its own, which all its instances share, and a new one that may take its place.
///
/// # Errors
/// When there is none of this seed.
pub fn signing_key(service: &str, is_new: bool) -> Result<SigningKey, SigningKeyError> {
    SigningKey::from_seed(&[service.as_bytes()[0] + u8::from(is_new); 32])
}
