//! Converts between the records of librdkafka and of the port.

use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::FutureRecord,
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

/// A record to publish, for the client. Its topic has the name that Kafka uses.
pub(crate) fn future_record<'a>(
    topic: &'a str,
    record: &'a Record<'_>,
) -> FutureRecord<'a, str, [u8]> {
    let future = FutureRecord::to(topic).key(record.key);
    let future = match record.payload {
        Some(payload) => future.payload(payload),
        None => future,
    };
    if record.headers.is_empty() {
        return future;
    }
    future.headers(record.headers.iter().fold(
        OwnedHeaders::new_with_capacity(record.headers.len()),
        |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value.as_ref()),
            })
        },
    ))
}
