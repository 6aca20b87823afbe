//! Events that are stored with the change they tell of and wait to be published.
//!
//! The transactional outbox: state and event are written in one step, so neither exists without the other.
//! The relay publishes what is pending and then clears it; a crash in between publishes twice, never not at all.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{event::CloudEvent, store::StoreError};

mod pace;
mod refusals;
pub mod relay;

/// An event that is stored and not yet known to be published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingEvent {
    /// The Kafka key: all events of one key are published in order of revision.
    pub key: String,
    /// The aggregate's revision that this event made.
    pub revision: i64,
    /// When it was stored.
    pub recorded_at: DateTime<Utc>,
    /// What will be published.
    pub event: CloudEvent,
    /// What is published with the event, which counts as published when all of it is acknowledged. A tombstone goes ahead of
    /// the event; the rest may go out together with it, so that its readers may have to wait for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<Companion>,
}

/// A message that goes with an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// Where it is published.
    pub topic: String,
    /// Its key.
    pub key: String,
    /// Its body; `None` for a tombstone.
    #[serde(default)]
    pub payload: Option<String>,
}

/// How much waits to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// Events pending.
    pub events: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<DateTime<Utc>>,
}

/// The pending events of a store.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Pending events of aggregates whose oldest pending event was stored at or before `recorded_before`,
    /// in order of key, then revision, of keys greater than `after_key`. All pending events of a key come
    /// together, so a page may hold more than `limit` events by what its last key has.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError>;

    /// Forgets published events: for each key, all up to and with the given revision.
    ///
    /// # Errors
    /// When the store does not answer; they are then published again later, which does no harm.
    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError>;

    /// How much is pending now.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}
