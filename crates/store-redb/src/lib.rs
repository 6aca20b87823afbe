//! The embedded store: one redb file for each service, used by one process.
//!
//! A service opens its file once as an [`EmbeddedStore`] and creates its adapters on it: [`EmbeddedAggregates`],
//! [`EmbeddedChangeLog`], [`EmbeddedDeadLetters`], or its own adapter with [`EmbeddedStore::write`] and
//! [`EmbeddedStore::read`]. All of them share one writer, so that commands in flight share a commit.

mod aggregates;
mod answers;
mod change_log;
mod codec;
mod committer;
mod dead_letters;
mod embedded_store;
mod error;
mod file;
mod last_failure;
mod registry;

pub use aggregates::EmbeddedAggregates;
pub use change_log::EmbeddedChangeLog;
pub use codec::Codec;
pub use committer::Durable;
pub use dead_letters::EmbeddedDeadLetters;
pub use embedded_store::EmbeddedStore;
pub use error::{OpenError, WorkError, away};
pub use registry::EmbeddedRegistry;

/// The [`version`](tandem_event_path::store::PublishedRow::version) of a record: a hash of its bytes. If records are
/// sealed, the bytes differ for each write, even of the same value.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Vec<u8> {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish().to_be_bytes().to_vec()
}
