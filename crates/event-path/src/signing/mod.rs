//! Signatures of events. Anyone who may write to the topics could make every reader believe anything. So each record is
//! signed by the service that owns its topic.
//!
//! Each service has its own Ed25519 key pair (RFC 8032). Another service holds nothing with which it could sign in this
//! one's name; the sealing key does not help. The signature is the record's header `ce_tandemsignature`, an extension
//! attribute of CloudEvents. Tombstones have it too. Readers learn the verifying keys from the claim of the topics, and
//! pin them in their stores (`docs/decisions/0017-signed-events.md`).

mod canonical;
mod key;
mod looks;
mod signature;
mod signer;
mod trust;

pub use canonical::{Leaf, leaf};
pub use key::{SigningKey, SigningKeyError, SigningSettings, TrustedSigner, VerifyingKey};
pub use signature::{MOST_TOGETHER, Unverified};
pub use signer::{ReplacedKey, Signer};
pub use trust::{Signatures, Topics};

/// The header that holds a record's signature.
pub const SIGNATURE: &str = "ce_tandemsignature";
/// Most bytes that a signature adds to a record: the header's name and its text.
pub const SIGNATURE_BYTES: usize = 512;
