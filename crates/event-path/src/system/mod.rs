//! Which system the topics of a log belong to. Two systems that used the same topics by mistake would mix up their
//! customers.
//!
//! The first service on new topics creates the system's identity, and claims the topics for it. The claim is a
//! message on the topic of data keys, which every service reads anyway and which is compacted, so that the claim
//! stays. A claim names the system, the store that claims, and the fingerprint of the sealing key. A service does not
//! start if its store belongs to another system, or if it has another sealing key. Events carry the identity as the
//! extension attribute `tandemsystem`; events of another system are refused
//! (`docs/decisions/0015-identity-of-a-log.md`).

mod claim;
mod judge;
mod log;
mod publisher;
mod signers;

pub use claim::{Claimant, claim};
pub use log::SystemLog;
