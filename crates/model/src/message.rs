//! A message that was read from a topic. It owns its data, so it can wait, be parked and be sent on.

/// A place in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in that partition.
    pub offset: i64,
}

/// A message that was read from a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The place in that topic.
    pub position: Position,
    /// The key as text. `None` if the message has no key. In a key that is not UTF-8, invalid bytes become replacement
    /// characters.
    pub key: Option<String>,
    /// The headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body. `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
    /// When the message was published, in milliseconds since 1970, by the clock of its publisher or of the log. `None`
    /// if the message does not say.
    pub published_ms: Option<i64>,
}

impl Message {
    /// The value of a header as text, if the header exists and is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// Why a message cannot be processed: it cannot be read, or it breaks a rule. The message becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The reason, in words for an operator.
    pub reason: String,
    /// Whether later messages of the same key can still be processed, because this message is not one of their
    /// sequence.
    pub stands_alone: bool,
}

impl Rejection {
    /// A rejection for this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            stands_alone: false,
        }
    }

    /// A rejection of a message that is not meant for this reader. Other messages of the same key are still processed.
    #[must_use]
    pub fn foreign(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            stands_alone: true,
        }
    }
}
