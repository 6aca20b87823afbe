//! Which system a log's topics belong to. Two systems on the same topics by mistake would take each other's customers for their own.
//!
//! The first service on new topics makes the system's identity, and claims the topics for it on the topic of data keys, which every
//! service reads anyway and which is compacted, so that a claim stays. A claim names the system, the store that claims, and the
//! fingerprint of the sealing key. A service whose store knows another system, or that has another key, does not start. Events carry
//! the identity as the extension attribute `tandemsystem`; those of another system are refused
//! (`docs/decisions/0015-identity-of-a-log.md`).

mod claim;
mod judge;
mod log;
mod publisher;
mod signers;

pub use claim::{Claimant, claim};
pub use log::SystemLog;
