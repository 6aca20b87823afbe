//! The Kafka protocol binding of CloudEvents, binary content mode: attributes in `ce_` headers, the JSON body as it is.
//!
//! See <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>, section 3.2.

use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::message::{Header, OwnedHeaders};
use uuid::Uuid;

use super::message::{Message, Rejection};
use crate::event::CloudEvent;

/// The headers of an event.
#[must_use]
pub fn headers(event: &CloudEvent) -> OwnedHeaders {
    let id = event.id.to_string();
    let time = event.time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_source", &event.source),
        ("ce_type", &event.kind),
        ("ce_subject", &event.subject),
        ("ce_time", &time),
        ("ce_dataschema", &event.data_schema),
        ("content-type", "application/json"),
    ];
    let trace = event
        .traceparent
        .as_deref()
        .map(|trace| ("ce_traceparent", trace));
    attributes.into_iter().chain(trace).fold(
        OwnedHeaders::new_with_capacity(9),
        |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        },
    )
}

/// Reads an event from a message.
///
/// # Errors
/// Names the attribute that is missing or is not what the specification says.
pub fn read(message: &Message) -> Result<CloudEvent, Rejection> {
    let attribute = |name: &str| {
        message
            .header(name)
            .map(str::to_owned)
            .ok_or_else(|| Rejection::new(format!("header {name} is missing or is not text")))
    };
    let version = attribute("ce_specversion")?;
    if version != "1.0" {
        return Err(Rejection::new(format!(
            "header ce_specversion is {version}, not 1.0"
        )));
    }
    let id = attribute("ce_id")?;
    let time = attribute("ce_time")?;
    let payload = message
        .payload
        .as_deref()
        .ok_or_else(|| Rejection::new("the body is missing"))?;
    Ok(CloudEvent {
        id: Uuid::parse_str(&id)
            .map_err(|_| Rejection::new(format!("header ce_id is {id}, not a UUID")))?,
        source: attribute("ce_source")?,
        kind: attribute("ce_type")?,
        subject: attribute("ce_subject")?,
        time: DateTime::parse_from_rfc3339(&time)
            .map_err(|_| Rejection::new(format!("header ce_time is {time}, not an RFC 3339 time")))?
            .with_timezone(&Utc),
        data_schema: attribute("ce_dataschema")?,
        traceparent: message.header("ce_traceparent").map(str::to_owned),
        data: String::from_utf8(payload.to_vec())
            .map_err(|_| Rejection::new("the body is not UTF-8"))?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::kafka::message::Position;

    fn event() -> CloudEvent {
        CloudEvent {
            id: Uuid::now_v7(),
            source: "/accounts".into(),
            kind: "CustomerChangeEvent".into(),
            subject: "123456".into(),
            time: "2026-11-23T10:00:00.123Z".parse().unwrap(),
            data_schema: "urn:tandem:schema:customer-change-event:v1".into(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            data: "{\"id\":\"123456\"}".into(),
        }
    }

    fn message(event: &CloudEvent) -> Message {
        Message {
            topic: "topic".into(),
            position: Position {
                partition: 0,
                offset: 0,
            },
            key: Some(event.subject.clone()),
            headers: headers(event)
                .iter()
                .map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.unwrap_or_default().to_vec(),
                    )
                })
                .collect(),
            payload: Some(event.data.clone().into_bytes()),
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = event();
        assert_eq!(read(&message(&event)).unwrap(), event);
    }

    #[test]
    fn a_missing_attribute_is_named() {
        let mut message = message(&event());
        message.headers.retain(|(key, _)| key != "ce_type");
        assert!(read(&message).unwrap_err().reason.contains("ce_type"));
    }

    #[test]
    fn a_tombstone_is_not_an_event() {
        let mut message = message(&event());
        message.payload = None;
        assert!(read(&message).is_err());
    }
}
