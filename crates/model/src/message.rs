//! A message as it was read from a topic, owned, so that it can wait, be parked and be sent on.

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
    /// When it was published, in milliseconds since 1970, by the clock of its publisher or of the log; `None` where nobody said so.
    pub published_ms: Option<i64>,
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

/// Why a message cannot be taken: it cannot be read, or it breaks a rule. It becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The reason, as an operator reads it.
    pub reason: String,
    /// Whether it says nothing of those that come behind it with the same key: it is none of theirs.
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

    /// A rejection of what is not meant for this reader: others of the same key are taken all the same.
    #[must_use]
    pub fn foreign(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            stands_alone: true,
        }
    }
}
