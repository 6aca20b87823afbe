//! Events that wait to be published, with their companions. They are stored together with the change that they
//! describe.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::event::CloudEvent;

/// An event that is stored and not yet known to be published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingEvent {
    /// The Kafka key. All events of one key are published in order of revision.
    pub key: String,
    /// The revision of the aggregate that this change made.
    pub revision: i64,
    /// When the event was stored.
    pub recorded_at: DateTime<Utc>,
    /// The event that will be published.
    pub event: CloudEvent,
    /// Messages that are published with the event. The event counts as published when all of them are acknowledged. A
    /// tombstone is published before the event. The others may go out together with the event, so readers of the event
    /// may have to wait for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub companions: Vec<Companion>,
}

/// A message that is published with an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// The topic that it is published to.
    pub topic: String,
    /// The key.
    pub key: String,
    /// The body. `None` for a tombstone.
    #[serde(default)]
    pub payload: Option<String>,
}
