//! The form of events and times in MongoDB: native dates and binary ids for the ports' chrono and uuid types.

use chrono::{DateTime, Utc};
use mongodb::bson::{self, RawDocument, Uuid as BsonUuid, doc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use tandem_event_path::{
    outbox::{Companion, PendingEvent},
    store::StoreError,
};
use tandem_model::event::CloudEvent;

pub(super) fn date(time: DateTime<Utc>) -> bson::DateTime {
    bson::DateTime::from_millis(time.timestamp_millis())
}

pub(super) fn time(date: bson::DateTime) -> Result<DateTime<Utc>, StoreError> {
    DateTime::from_timestamp_millis(date.timestamp_millis()).ok_or_else(|| {
        StoreError::Corrupt(format!(
            "the date {} ms is out of range",
            date.timestamp_millis()
        ))
    })
}

pub(super) fn binary(id: Uuid) -> BsonUuid {
    BsonUuid::from_bytes(id.into_bytes())
}

pub(super) fn uuid(id: BsonUuid) -> Uuid {
    Uuid::from_bytes(id.bytes())
}

/// Reads a document as the type that it was written from.
///
/// # Errors
/// [`StoreError::Corrupt`] if the document does not fit the type.
pub fn read<T: DeserializeOwned>(document: &RawDocument) -> Result<T, StoreError> {
    bson::deserialize_from_slice(document.as_bytes()).map_err(|error| {
        let id = document.get("_id").ok().flatten();
        StoreError::Corrupt(format!("the document {id:?} cannot be read: {error}"))
    })
}

/// The mark in an aggregate's document that says that an idempotency key was used: see [`super::answers`].
#[derive(Debug, Serialize)]
pub(super) struct Mark<'a> {
    pub(super) key: &'a str,
    pub(super) at: bson::DateTime,
    pub(super) input: &'a str,
    /// The id of the answer's document.
    pub(super) answer: String,
}

/// The name of the index for the lists by these fields.
pub(super) fn index_name(fields: &[&str]) -> String {
    fields.join(",")
}

/// The filter for documents with these ids. A single id has its own form, because MongoDB then needs no query planning.
pub(super) fn with_ids(ids: &[String]) -> bson::Document {
    match ids {
        [id] => doc! { "_id": id },
        ids => doc! { "_id": { "$in": ids } },
    }
}

/// A value as a document with native dates and decimals. `serialize_to_document` would write them as text, for people.
///
/// # Errors
/// [`StoreError::Corrupt`] if the value is not a document.
pub fn native<T: Serialize>(value: &T) -> Result<bson::Document, StoreError> {
    let raw = bson::serialize_to_raw_document_buf(value).map_err(unwritable)?;
    bson::Document::try_from(raw).map_err(unwritable)
}

pub(super) fn unwritable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("a document cannot be written: {error}"))
}

/// A pending event inside its aggregate's document. Its key is the document's `_id`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PendingDocument {
    revision: i64,
    recorded_at: bson::DateTime,
    event: EventDocument,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    companions: Vec<Companion>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EventDocument {
    id: BsonUuid,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: bson::DateTime,
    #[serde(rename = "dataschema")]
    data_schema: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    data: String,
}

impl From<&PendingEvent> for PendingDocument {
    fn from(pending: &PendingEvent) -> Self {
        let event = &pending.event;
        Self {
            revision: pending.revision,
            recorded_at: date(pending.recorded_at),
            event: EventDocument {
                id: binary(event.id),
                source: event.source.clone(),
                kind: event.kind.clone(),
                subject: event.subject.clone(),
                time: date(event.time),
                data_schema: event.data_schema.clone(),
                traceparent: event.traceparent.clone(),
                data: event.data.clone(),
            },
            companions: pending.companions.clone(),
        }
    }
}

impl PendingDocument {
    pub(super) fn into_event(self, key: String) -> Result<PendingEvent, StoreError> {
        let event = self.event;
        Ok(PendingEvent {
            key,
            revision: self.revision,
            recorded_at: time(self.recorded_at)?,
            event: CloudEvent {
                id: uuid(event.id),
                source: event.source,
                kind: event.kind,
                subject: event.subject,
                time: time(event.time)?,
                data_schema: event.data_schema,
                traceparent: event.traceparent,
                data: event.data,
            },
            companions: self.companions,
        })
    }
}
