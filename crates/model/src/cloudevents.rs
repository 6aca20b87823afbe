//! The Kafka protocol binding of CloudEvents.
//!
//! Events are written in binary content mode: the attributes are `ce_` headers, and the body is plain JSON. Events of
//! any producer are read in binary mode and in structured mode, where the body holds the whole event.
//!
//! See <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>, sections 3.2
//! and 3.3.

use std::borrow::Cow;

use crate::{
    event::{CloudEvent, ReceivedEvent},
    message::{Message, Rejection},
};
use chrono::{DateTime, SecondsFormat, Utc};

/// The header of the extension attribute that names the system to which an event belongs.
pub const SYSTEM: &str = "ce_tandemsystem";
/// The name of the same attribute without the `ce_` prefix.
const SYSTEM_ATTRIBUTE: &str = "tandemsystem";
/// The header of the extension attribute that marks a restored event. Such an event was made again from the state in a
/// store. The reason is that the log lost the original, or that an older sealing key sealed it.
pub const RESTORED: &str = "ce_tandemrestored";
/// A header that readers add to a message when the message may come from another system. It names the system that
/// reads. Events of other systems are refused. The log never contains this header.
pub const READ_BY: &str = "tandem-read-by";
/// A header that readers add to a message that they refuse, because nobody who may write to the topic signed it. It
/// holds the reason. The log never contains this header.
pub const REFUSED: &str = "tandem-refused";

/// The headers of an event, in order.
#[must_use]
pub fn headers(event: &CloudEvent) -> Vec<(&str, Cow<'_, [u8]>)> {
    fn text(value: &str) -> Cow<'_, [u8]> {
        value.as_bytes().into()
    }
    let time = event.time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut headers = vec![
        ("ce_specversion", text("1.0")),
        ("ce_id", event.id.to_string().into_bytes().into()),
        ("ce_source", text(&event.source)),
        ("ce_type", text(&event.kind)),
        ("ce_subject", text(&event.subject)),
        ("ce_time", time.into_bytes().into()),
        ("ce_dataschema", text(&event.data_schema)),
        ("content-type", text("application/json")),
    ];
    if let Some(trace) = &event.traceparent {
        headers.push(("ce_traceparent", text(trace)));
    }
    headers
}

/// The media type of an event in structured content mode: the body holds the whole event.
const STRUCTURED: &str = "application/cloudevents";
/// The media type of several structured events in one body.
const BATCH: &str = "application/cloudevents-batch";

/// Reads an event from a message, in binary or structured content mode. Optional attributes may be missing. Extension
/// attributes are ignored, except the one that names the system ([`SYSTEM`]).
///
/// # Errors
/// Names the header or attribute that is missing or breaks the specification, and what was expected.
pub fn read(message: &Message) -> Result<ReceivedEvent, Rejection> {
    if let Some(reason) = message.header(REFUSED) {
        return Err(Rejection::foreign(reason));
    }
    let body = message
        .payload
        .as_deref()
        .ok_or_else(|| Rejection::new("the body is missing: a tombstone is not an event"))?;
    let body = std::str::from_utf8(body)
        .map_err(|_| Rejection::new("the body is not UTF-8; expected JSON in UTF-8"))?;
    let content_type = header(message, "content-type")?;
    match content_type.map(media_type).as_deref() {
        Some(kind) if kind.starts_with(BATCH) => Err(Rejection::new(format!(
            "header content-type is {kind}, a batch; expected one event a message, as application/cloudevents+json"
        ))),
        Some(kind) if kind.starts_with(STRUCTURED) => {
            if kind != "application/cloudevents+json" && kind != STRUCTURED {
                return Err(Rejection::new(format!(
                    "header content-type is {kind}; expected application/cloudevents+json"
                )));
            }
            structured(message, body)
        }
        Some(kind) if !is_json(kind) => Err(Rejection::new(format!(
            "header content-type is {kind}; expected application/json, or application/cloudevents+json for a whole event in the body"
        ))),
        _ => binary(message, body),
    }
}

/// Whether the content type of a message says that the body holds the whole event.
#[must_use]
pub fn is_structured(message: &Message) -> bool {
    let kind = message.header("content-type").map(media_type);
    kind.is_some_and(|kind| kind.starts_with(STRUCTURED))
}

/// The media type without its parameters, in lower case.
fn media_type(content_type: &str) -> String {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

/// The value of a header as text. `None` if the header is missing.
fn header<'a>(message: &'a Message, name: &str) -> Result<Option<&'a str>, Rejection> {
    let found = message
        .headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name));
    let Some((_, value)) = found else {
        return Ok(None);
    };
    std::str::from_utf8(value)
        .map(Some)
        .map_err(|_| Rejection::new(format!("header {name} is not text; expected UTF-8")))
}

/// Reads and checks the attributes in either content mode. `where_is` turns the name of an attribute into the text by
/// which messages refer to it.
fn event(
    message: &Message,
    attribute: impl Fn(&str) -> Result<Option<String>, Rejection>,
    where_is: impl Fn(&str) -> String,
    data: String,
) -> Result<ReceivedEvent, Rejection> {
    let required = |name: &str, expected: &str| match attribute(name)? {
        Some(value) if !value.is_empty() => Ok(value),
        Some(_) => Err(Rejection::new(format!(
            "{} is empty; expected {expected}",
            where_is(name)
        ))),
        None => Err(Rejection::new(format!(
            "{} is missing; expected {expected}",
            where_is(name)
        ))),
    };
    let version = required("specversion", "1.0")?;
    if version != "1.0" {
        return Err(Rejection::new(format!(
            "{} is {version}; expected 1.0",
            where_is("specversion")
        )));
    }
    if let Some(ours) = message.header(READ_BY)
        && let Some(theirs) = attribute(SYSTEM_ATTRIBUTE)?
        && theirs != ours
    {
        return Err(Rejection::foreign(format!(
            "{} is {theirs}: the event is of another system, not of this one, {ours}",
            where_is(SYSTEM_ATTRIBUTE)
        )));
    }
    let time = attribute("time")?
        .map(|time| {
            DateTime::parse_from_rfc3339(&time)
                .map(|time| time.with_timezone(&Utc))
                .map_err(|_| {
                    Rejection::new(format!(
                        "{} is {time}; expected an RFC 3339 time such as 2026-11-23T10:00:00Z",
                        where_is("time")
                    ))
                })
        })
        .transpose()?;
    Ok(ReceivedEvent {
        id: required(
            "id",
            "a text that is unique within its source, such as a UUID",
        )?,
        source: required("source", "a URI reference such as /accounts")?,
        kind: required("type", "the kind of event, such as CustomerChangeEvent")?,
        subject: attribute("subject")?.filter(|subject| !subject.is_empty()),
        time,
        data_schema: attribute("dataschema")?,
        data,
    })
}

fn binary(message: &Message, body: &str) -> Result<ReceivedEvent, Rejection> {
    let name = |attribute: &str| format!("ce_{attribute}");
    event(
        message,
        |attribute| Ok(header(message, &name(attribute))?.map(str::to_owned)),
        |attribute| format!("header {}", name(attribute)),
        body.to_owned(),
    )
}

/// See <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.
fn structured(message: &Message, body: &str) -> Result<ReceivedEvent, Rejection> {
    // Serde's own error text may quote a body that is a string. Reasons are shown in places where bodies must not be.
    let whole: serde_json::Map<String, serde_json::Value> =
        crate::json::read_object(body.as_bytes()).map_err(|error| {
            Rejection::new(format!(
                "the body is not an event in CloudEvents' JSON format: {error}"
            ))
        })?;
    if whole.contains_key("data_base64") {
        return Err(Rejection::new(
            "the event has data_base64; expected data, as JSON",
        ));
    }
    let content_type = whole.get("datacontenttype").and_then(|kind| kind.as_str());
    if let Some(kind) = content_type.map(media_type).filter(|kind| !is_json(kind)) {
        return Err(Rejection::new(format!(
            "attribute datacontenttype is {kind}; expected application/json"
        )));
    }
    let data = whole
        .get("data")
        .ok_or_else(|| Rejection::new("the event has no data; expected a JSON object"))?
        .to_string();
    event(
        message,
        |attribute| match whole.get(attribute) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Rejection::new(format!(
                "attribute {attribute} is not a text"
            ))),
        },
        |attribute| format!("attribute {attribute}"),
        data,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use uuid::Uuid;

    use super::*;
    use crate::message::Position;

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
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into_owned()))
                .collect(),
            payload: Some(event.data.clone().into_bytes()),
            published_ms: None,
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = event();
        assert_eq!(read(&message(&event)).unwrap(), ReceivedEvent::from(event));
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

    #[test]
    fn an_event_of_another_producer_needs_no_more_than_the_specification_does() {
        let mut message = message(&event());
        message.headers = [
            ("CE_SPECVERSION", "1.0"),
            ("ce_id", "order 7 / attempt 2"),
            ("ce_source", "https://example.org/shop"),
            ("ce_type", "CustomerChangeEvent"),
            ("ce_partitionkey", "7"),
            ("content-type", "application/json; charset=utf-8"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .to_vec();
        let read = read(&message).unwrap();
        assert_eq!(read.id, "order 7 / attempt 2");
        assert_eq!(
            (read.subject, read.time, read.data_schema),
            (None, None, None)
        );
    }

    fn structured_message(body: &str) -> Message {
        Message {
            headers: vec![(
                "Content-Type".into(),
                b"application/cloudevents+json; charset=UTF-8".to_vec(),
            )],
            payload: Some(body.as_bytes().to_vec()),
            published_ms: None,
            ..message(&event())
        }
    }

    #[test]
    fn an_event_that_is_all_in_the_body_is_read() {
        let read = read(&structured_message(
            r#"{"specversion": "1.0", "id": "1", "source": "/shop", "type": "CustomerChangeEvent", "subject": "7",
                "time": "2026-11-23T10:00:00+01:00", "sampledrate": 3, "data": {"id": "7"}}"#,
        ))
        .unwrap();
        assert_eq!(
            (read.id.as_str(), read.subject.as_deref()),
            ("1", Some("7"))
        );
        assert_eq!(read.time.unwrap().to_rfc3339(), "2026-11-23T09:00:00+00:00");
        assert_eq!(read.data, r#"{"id":"7"}"#);
    }

    #[test]
    fn an_event_of_another_system_is_refused_in_either_mode() {
        let read_by = |mut message: Message, ours: &str| {
            let mark = (READ_BY.to_owned(), ours.as_bytes().to_vec());
            message.headers.push(mark);
            read(&message)
        };
        let theirs = || {
            let mut message = message(&event());
            message
                .headers
                .push((SYSTEM.to_owned(), b"theirs".to_vec()));
            message
        };
        let refused = read_by(theirs(), "ours").unwrap_err();
        assert!(refused.stands_alone);
        assert!(
            refused.reason.contains("header ce_tandemsystem is theirs"),
            "{}",
            refused.reason
        );
        assert!(read_by(theirs(), "theirs").is_ok());
        assert!(read(&theirs()).is_ok(), "nobody has asked");
        let of = |system: &str| {
            structured_message(&format!(
                r#"{{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", {system} "data": {{}}}}"#
            ))
        };
        let theirs = of(r#""tandemsystem": "theirs","#);
        assert!(is_structured(&theirs));
        let refused = read_by(theirs, "ours").unwrap_err();
        assert!(refused.reason.contains("attribute tandemsystem is theirs"));
        assert!(read_by(of(""), "ours").is_ok());
    }

    #[test]
    fn what_is_refused_names_the_attribute_and_what_would_be_right() {
        let refused = |message: &Message, words: &[&str]| {
            let reason = read(message).unwrap_err().reason;
            for word in words {
                assert!(reason.contains(word), "{word} is not in: {reason}");
            }
        };
        let with = |name: &str, value: &[u8]| {
            let mut message = message(&event());
            message.headers.retain(|(key, _)| key != name);
            message.headers.push((name.to_owned(), value.to_vec()));
            message
        };
        refused(
            &with("ce_specversion", b"0.3"),
            &["ce_specversion", "0.3", "1.0"],
        );
        refused(&with("ce_id", b""), &["ce_id", "empty"]);
        refused(&with("ce_type", &[0xff]), &["ce_type", "UTF-8"]);
        refused(
            &with("ce_time", b"yesterday"),
            &["ce_time", "yesterday", "RFC 3339"],
        );
        refused(
            &with("content-type", b"text/xml"),
            &["content-type", "text/xml", "application/json"],
        );
        refused(
            &with("content-type", b"application/cloudevents-batch+json"),
            &["batch", "one event"],
        );
        refused(&structured_message("[]"), &["JSON format"]);
        let quotes_nothing = structured_message(r#""4111 1111 1111 1111""#);
        refused(&quotes_nothing, &["JSON format", "string"]);
        let reason = read(&quotes_nothing).unwrap_err().reason;
        assert!(!reason.contains("4111"), "{reason}");
        refused(
            &structured_message(r#"{"specversion": "1.0", "id": "1", "source": "/s", "data": {}}"#),
            &["attribute type", "missing"],
        );
        refused(
            &structured_message(
                r#"{"specversion": "1.0", "id": 1, "source": "/s", "type": "t", "data": {}}"#,
            ),
            &["attribute id", "text"],
        );
        refused(
            &structured_message(r#"{"specversion": "1.0", "data_base64": "AA=="}"#),
            &["data_base64"],
        );
    }
}
