//! The embedded store: one redb file a service, for one process.
//!
//! A service opens its file once as an [`EmbeddedStore`] and builds on it what it keeps there: [`EmbeddedAggregates`],
//! [`EmbeddedChangeLog`], [`EmbeddedDeadLetters`], or an adapter of its own through [`EmbeddedStore::write`] and
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

/// The [`mark`](tandem_event_path::store::PublishedRow::version) of a record: a hash of its bytes, which differ from one writing to the next, also of
/// the same value, where records are sealed.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Vec<u8> {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish().to_be_bytes().to_vec()
}
