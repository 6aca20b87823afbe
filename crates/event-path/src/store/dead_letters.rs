//! The port through which a service keeps its dead letters: messages that could not be processed, each bounded in size.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;
use tandem_model::message::{Message, Position};

/// Most bytes of a body that are kept. Of a larger body only the beginning is kept; the log has all of it.
pub const KEPT_BODY: usize = 256 * 1024;
/// Most bytes of headers that are kept. Headers that do not fit are left out.
pub const KEPT_HEADERS: usize = 64 * 1024;
/// Most bytes of a key that are kept unchanged.
const KEPT_KEY: usize = 512;
/// Most bytes of a reason.
const KEPT_REASON: usize = 2_000;
/// The first character of the ordering key of a message without key and subject. No id of an aggregate begins with it.
const ALONE: char = '#';

/// A message that could not be processed, or a later one of the same key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The consumer that could not process it: a projection's name.
    pub consumer: String,
    /// The topic of the message.
    pub topic: String,
    /// The partition of the message.
    pub partition: i32,
    /// The offset of the message.
    pub offset: i64,
    /// The ordering key: letters of one key are parked and retried in order. It is the message's key, or its subject if
    /// it has no key. A message with neither stands alone under `#<partition>/<offset>`.
    pub key: String,
    /// Why the message was not processed.
    pub reason: String,
    /// When the message was parked.
    pub parked_at: DateTime<Utc>,
    /// The message's headers, [`KEPT_HEADERS`] bytes at most.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The message's body, [`KEPT_BODY`] bytes at most. `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Whether a part of the message is left out here.
    #[serde(default)]
    pub is_cut: bool,
}

impl DeadLetter {
    /// A message that a consumer parks, cut to the sizes that are kept.
    #[must_use]
    pub fn new(
        consumer: &str,
        message: Message,
        key: String,
        mut reason: String,
        parked_at: DateTime<Utc>,
    ) -> Self {
        let mut is_cut = false;
        let mut room = KEPT_HEADERS;
        let mut headers = message.headers;
        headers.retain(|(name, value)| {
            let bytes = name.len() + value.len();
            let fits = bytes <= room;
            if fits {
                room -= bytes;
            }
            is_cut |= !fits;
            fits
        });
        let mut payload = message.payload;
        if let Some(payload) = payload.as_mut().filter(|body| body.len() > KEPT_BODY) {
            payload.truncate(KEPT_BODY);
            payload.shrink_to_fit();
            is_cut = true;
        }
        if reason.len() > KEPT_REASON {
            let end = (0..=KEPT_REASON)
                .rev()
                .find(|end| reason.is_char_boundary(*end))
                .unwrap_or_default();
            reason.truncate(end);
            reason.push('…');
        }
        Self {
            consumer: consumer.to_owned(),
            topic: message.topic,
            partition: message.position.partition,
            offset: message.position.offset,
            key,
            reason,
            parked_at,
            headers,
            payload,
            is_cut,
        }
    }

    /// The position of the message.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            partition: self.partition,
            offset: self.offset,
        }
    }

    /// The id of the letter.
    #[must_use]
    pub fn id(&self) -> LetterId {
        LetterId {
            consumer: self.consumer.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            offset: self.offset,
        }
    }
}

/// The ordering key of a message: its key, or else its subject if that is known. A message with neither stands alone.
#[must_use]
pub fn ordering_key(message: &Message, subject: Option<&str>) -> String {
    let key = message.key.as_deref().filter(|key| !key.is_empty());
    match key.or(subject) {
        Some(key) if key.len() <= KEPT_KEY => key.to_owned(),
        Some(key) => {
            let beginning: String = key.chars().take(64).collect();
            format!("{beginning}…{:x}", Sha256::digest(key))
        }
        None => alone(message),
    }
}

/// The ordering key of a message that stands alone.
#[must_use]
pub fn alone(message: &Message) -> String {
    let position = message.position;
    format!("{ALONE}{}/{}", position.partition, position.offset)
}

/// Whether this is the ordering key of a message that stands alone. No later message waits behind such a letter.
#[must_use]
pub fn stands_alone(key: &str) -> bool {
    key.starts_with(ALONE)
}

/// Identifies one letter. Letters are in order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
pub struct LetterId {
    /// The consumer that parked it.
    pub consumer: String,
    /// The topic of the message.
    pub topic: String,
    /// The partition of the message.
    pub partition: i32,
    /// The offset of the message.
    pub offset: i64,
}

/// Selects letters: all, those of one consumer, or those of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeadLetterFilter {
    /// Only letters of this consumer.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Only letters of this key.
    #[serde(default)]
    pub key: Option<String>,
}

/// Parked messages, until somebody retries or discards them.
#[async_trait]
pub trait DeadLetterStore: Send + Sync + 'static {
    /// Parks messages. Parking one again (same consumer, topic, partition, offset) changes nothing.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError>;

    /// At most `limit` dead letters behind `after` that the filter selects, in order of consumer, topic, partition,
    /// offset.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter, if it exists.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn dead_letter(&self, id: &LetterId) -> Result<Option<DeadLetter>, StoreError>;

    /// How many dead letters the filter selects.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn count(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError>;

    /// The distinct keys under which a consumer has dead letters.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError>;

    /// Removes one dead letter. Returns whether it existed.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn unpark(&self, id: &LetterId) -> Result<bool, StoreError>;

    /// Removes all dead letters of a consumer's key. Returns how many.
    ///
    /// # Errors
    /// When the store does not answer. Some may then be removed.
    async fn unpark_key(&self, consumer: &str, key: &str) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tandem_model::message::Position;

    fn message(key: Option<&str>, body: usize) -> Message {
        Message {
            topic: "t".into(),
            position: Position {
                partition: 3,
                offset: 14,
            },
            key: key.map(str::to_owned),
            headers: vec![
                ("a".into(), vec![0; 60_000]),
                ("b".into(), vec![0; 9_000]),
                ("c".into(), vec![1]),
            ],
            payload: Some(vec![7; body]),
            published_ms: None,
        }
    }

    #[test]
    fn what_is_kept_of_a_message_has_a_bound() {
        let letter = DeadLetter::new(
            "c",
            message(Some("k"), 1_000_000),
            "k".into(),
            "é".repeat(4_000),
            DateTime::default(),
        );
        assert!(letter.is_cut);
        assert_eq!(letter.payload.unwrap().len(), KEPT_BODY);
        let names: Vec<&str> = letter
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["a", "c"]);
        assert!(letter.reason.len() < 2_010);
        let mut small = message(Some("k"), 10);
        small.headers.clear();
        assert!(!DeadLetter::new("c", small, "k".into(), "r".into(), DateTime::default()).is_cut);
    }

    #[test]
    fn a_message_without_a_key_stands_alone_unless_its_subject_can_be_told() {
        assert_eq!(ordering_key(&message(Some("k"), 0), Some("s")), "k");
        assert_eq!(ordering_key(&message(None, 0), Some("s")), "s");
        assert_eq!(ordering_key(&message(Some(""), 0), Some("s")), "s");
        let alone = ordering_key(&message(None, 0), None);
        assert_eq!(alone, "#3/14");
        assert!(stands_alone(&alone));
        let long = "x".repeat(100_000);
        assert!(ordering_key(&message(Some(&long), 0), None).len() < 300);
        assert_ne!(
            ordering_key(&message(Some(&long), 0), None),
            ordering_key(&message(Some(&format!("{long}y")), 0), None)
        );
    }
}
