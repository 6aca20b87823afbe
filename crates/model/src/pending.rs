//! Events that are stored with the change they tell of and wait to be published, with what is published beside them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::CloudEvent;

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
