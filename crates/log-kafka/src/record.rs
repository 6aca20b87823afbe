//! Converts between the records of librdkafka and of the port.

use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::BaseRecord,
    util::IntoOpaque,
};
use tandem_event_path::log::Record;
use tandem_model::message::{Message, Position};

/// An owned message from a record. Its topic has the name that the services use.
pub(crate) fn message(record: &BorrowedMessage<'_>, topic: &str) -> Message {
    let headers = record.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.unwrap_or_default().to_vec(),
                )
            })
            .collect()
    });
    Message {
        topic: topic.to_owned(),
        position: Position {
            partition: record.partition(),
            offset: record.offset(),
        },
        key: record
            .key()
            .map(|key| String::from_utf8_lossy(key).into_owned()),
        headers,
        payload: record.payload().map(<[u8]>::to_vec),
        published_ms: record.timestamp().to_millis().filter(|ms| *ms > 0),
    }
}

/// A record to publish, for the client. Its topic has the name that Kafka uses. The report about it carries `report`.
pub(crate) fn for_producer<'a, R: IntoOpaque>(
    topic: &'a str,
    record: &'a Record<'_>,
    report: R,
) -> BaseRecord<'a, str, [u8], R> {
    let sent = BaseRecord::with_opaque_to(topic, report).key(record.key);
    let sent = match record.payload {
        Some(payload) => sent.payload(payload),
        None => sent,
    };
    if record.headers.is_empty() {
        return sent;
    }
    sent.headers(record.headers.iter().fold(
        OwnedHeaders::new_with_capacity(record.headers.len()),
        |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value.as_ref()),
            })
        },
    ))
}
