//! The envelope of every event that leaves a service: a CloudEvents 1.0 event with a JSON body.
//!
//! The service that publishes the event defines the body. The envelope is the same for all services. See
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A CloudEvents 1.0 event, with `datacontenttype` `application/json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// `id`: unique within `source`. It is a version 7 UUID, so ids sort by the time at which they were made.
    pub id: Uuid,
    /// `source`: the service that publishes the event, such as `/accounts`.
    pub source: String,
    /// `type`: the kind of event, such as `CustomerChangeEvent`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `subject`: the id of the aggregate that changed.
    pub subject: String,
    /// `time`: when the change was made.
    pub time: DateTime<Utc>,
    /// `dataschema`: the version of the body's schema.
    #[serde(rename = "dataschema")]
    pub data_schema: String,
    /// `traceparent` (the Distributed Tracing extension): the trace of the request that asked for the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// `data`: the JSON body. It is serialized once and kept as text, so every copy has the same bytes.
    pub data: String,
}

/// An event that was received, from any producer. Attributes that another producer may omit are optional.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedEvent {
    /// `id`: any text that is not empty.
    pub id: String,
    /// `source`.
    pub source: String,
    /// `type`.
    pub kind: String,
    /// `subject`, if it is given.
    pub subject: Option<String>,
    /// `time`, if it is given.
    pub time: Option<DateTime<Utc>>,
    /// `dataschema`, if it is given.
    pub data_schema: Option<String>,
    /// `data`: the JSON body.
    pub data: String,
}

impl From<CloudEvent> for ReceivedEvent {
    fn from(event: CloudEvent) -> Self {
        Self {
            id: event.id.to_string(),
            source: event.source,
            kind: event.kind,
            subject: Some(event.subject),
            time: Some(event.time),
            data_schema: Some(event.data_schema),
            data: event.data,
        }
    }
}
