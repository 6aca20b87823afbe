//! A message as it was read from a topic, owned, so that it can wait, be parked and be sent on.

use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};

/// A place in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in that partition.
    pub offset: i64,
}

/// A message as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where it was read.
    pub topic: String,
    /// Where in that topic.
    pub position: Position,
    /// Its key as text; `None` when it has none. A key that is not UTF-8 is read with replacement characters.
    pub key: Option<String>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body; `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
}

impl Message {
    /// The value of a header as text, if it is there and is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

impl From<&BorrowedMessage<'_>> for Message {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
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
        Self {
            topic: message.topic().to_owned(),
            position: Position {
                partition: message.partition(),
                offset: message.offset(),
            },
            key: message
                .key()
                .map(|key| String::from_utf8_lossy(key).into_owned()),
            headers,
            payload: message.payload().map(<[u8]>::to_vec),
        }
    }
}

/// Why a message cannot be taken: it cannot be read, or it breaks a rule. It becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The reason, as an operator reads it.
    pub reason: String,
}

impl Rejection {
    /// A rejection for this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}
