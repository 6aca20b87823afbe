//! The progress on the topic of keys that a store remembers: how far the topic was read, and the claims up to there,
//! which may be at any offset. With the claims, a start knows who owns the topics before it has read the older part
//! again.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tandem_model::message::{Message, Position};

use crate::{
    checkpoint::Checkpoint,
    log::{Offsets, TopicState},
};

/// The version of the format. Any other version is ignored: then the whole topic is read first.
const VERSION: u32 = 1;

/// How far the topic of keys was read, and what a start needs first of the part up to there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeysRead {
    version: u32,
    /// The identity that distinguishes the topic from others of its name, if the client reports one.
    identity: Option<String>,
    /// The last record that was read in each partition.
    last: BTreeMap<i32, Place>,
    /// The claims on the topics, in log order.
    claims: Vec<RememberedClaim>,
    /// Subjects for which the topic shows a tombstone or a refused record up to there, and which the store does not
    /// know to be erased. The stored state of these subjects is not reliable before the whole topic is read.
    doubtful: BTreeSet<String>,
}

/// Identifies a record among all others that could be at its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    record: Checkpoint,
    published_ms: Option<i64>,
}

impl Place {
    pub(super) fn of(message: &Message) -> Self {
        Self {
            record: Checkpoint::of(message),
            published_ms: message.published_ms,
        }
    }

    pub(super) fn offset(&self) -> i64 {
        self.record.offset
    }
}

/// A claim as it was read. Its body and headers are bytes that anybody may have written, so they are encoded as
/// Base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RememberedClaim {
    partition: i32,
    offset: i64,
    key: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<String>,
    published_ms: Option<i64>,
}

impl RememberedClaim {
    fn of(message: &Message) -> Self {
        let headers = message.headers.iter();
        Self {
            partition: message.position.partition,
            offset: message.position.offset,
            key: message.key.clone(),
            headers: headers
                .map(|(name, value)| (name.clone(), STANDARD.encode(value)))
                .collect(),
            body: message.payload.as_ref().map(|body| STANDARD.encode(body)),
            published_ms: message.published_ms,
        }
    }

    fn message(&self, topic: &str) -> Option<Message> {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            headers.push((name.clone(), STANDARD.decode(value).ok()?));
        }
        let payload = match &self.body {
            Some(body) => Some(STANDARD.decode(body).ok()?),
            None => None,
        };
        Some(Message {
            topic: topic.to_owned(),
            position: Position {
                partition: self.partition,
                offset: self.offset,
            },
            key: self.key.clone(),
            headers,
            payload,
            published_ms: self.published_ms,
        })
    }
}

impl KeysRead {
    pub(super) fn new(
        identity: Option<String>,
        last: BTreeMap<i32, Place>,
        claims: &[Message],
        doubtful: BTreeSet<String>,
    ) -> Self {
        Self {
            version: VERSION,
            identity,
            last,
            claims: claims.iter().map(RememberedClaim::of).collect(),
            doubtful,
        }
    }

    /// Parses the stored text, with the claims as messages of this topic. `None` if it cannot be read.
    pub(super) fn parse(text: &str, topic: &str) -> Option<(Self, Vec<Message>)> {
        let read: Self = serde_json::from_str(text).ok()?;
        if read.version != VERSION || read.last.is_empty() {
            return None;
        }
        let claims = read.claims.iter().map(|claim| claim.message(topic));
        let claims = claims.collect::<Option<Vec<Message>>>()?;
        Some((read, claims))
    }

    pub(super) fn last(&self) -> &BTreeMap<i32, Place> {
        &self.last
    }

    pub(super) fn doubtful(&self) -> &BTreeSet<String> {
        &self.doubtful
    }

    /// The positions of the last records.
    pub(super) fn places(&self) -> Offsets {
        let last = self.last.iter();
        last.map(|(partition, place)| (*partition, place.offset()))
            .collect()
    }

    /// Why a topic with this state cannot be the one that was read; `None` if it may be that one.
    pub(super) fn misfit(&self, state: &TopicState) -> Option<String> {
        if let (Some(was), Some(is)) = (&self.identity, &state.identity)
            && was != is
        {
            return Some("it has another identity".to_owned());
        }
        self.places().into_iter().find_map(|(partition, offset)| {
            let Some((low, high)) = state.ends.get(&partition) else {
                return Some(format!("its partition {partition} is not there"));
            };
            (!(*low..*high).contains(&offset)).then(|| {
                format!("its partition {partition} has offsets {low} to {high}, and was read to offset {offset}")
            })
        })
    }

    /// Why the topic is not the one that was read, judged by the records that were found at [`Self::places`]. Each of
    /// these records must be there, because what precedes a record in a partition never changes. If compaction has
    /// removed one, it is unknown whether the topic is the same.
    pub(super) fn contradiction(&self, found: &BTreeMap<i32, Option<Message>>) -> Option<String> {
        self.last.iter().find_map(|(partition, place)| {
            let offset = place.offset();
            match found.get(partition).and_then(Option::as_ref) {
                Some(message) if Place::of(message) == *place => None,
                Some(_) => Some(format!(
                    "the record at offset {offset} of partition {partition} is another one than was read there"
                )),
                None => Some(format!(
                    "the record at offset {offset} of partition {partition}, which was read last, is not there any more"
                )),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(offset: i64, body: &[u8]) -> Message {
        Message {
            topic: "keys".to_owned(),
            position: Position {
                partition: 0,
                offset,
            },
            key: Some("!claim/accounts".to_owned()),
            headers: vec![("signature".to_owned(), vec![0xff, 0])],
            payload: Some(body.to_vec()),
            published_ms: Some(7),
        }
    }

    fn read() -> KeysRead {
        let last = [(0, Place::of(&message(4, b"last")))].into();
        let claims = [message(1, &[0xfe])];
        KeysRead::new(Some("a".to_owned()), last, &claims, BTreeSet::new())
    }

    fn state(identity: Option<&str>, ends: (i64, i64)) -> TopicState {
        TopicState {
            identity: identity.map(str::to_owned),
            ends: [(0, ends)].into(),
        }
    }

    #[test]
    fn what_is_remembered_is_read_as_it_was_written() {
        let text = serde_json::to_string(&read()).unwrap();
        let (again, claims) = KeysRead::parse(&text, "keys").unwrap();
        assert_eq!(again, read());
        assert_eq!(claims, [message(1, &[0xfe])]);
        assert_eq!(KeysRead::parse("{}", "keys"), None);
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert_ne!(newer, text);
        assert_eq!(KeysRead::parse(&newer, "keys"), None);
    }

    #[test]
    fn another_topic_is_not_the_one_that_was_read() {
        let read = read();
        assert_eq!(read.misfit(&state(Some("a"), (0, 5))), None);
        assert_eq!(read.misfit(&state(None, (4, 9))), None);
        for another in [
            state(Some("b"), (0, 5)),
            state(None, (0, 4)),
            state(None, (5, 9)),
            TopicState::default(),
        ] {
            assert!(read.misfit(&another).is_some(), "{another:?}");
        }
        let found = |message: Option<Message>| BTreeMap::from([(0, message)]);
        assert_eq!(read.contradiction(&found(Some(message(4, b"last")))), None);
        let another = found(Some(message(4, b"another")));
        assert!(read.contradiction(&another).is_some());
        assert!(read.contradiction(&found(None)).is_some());
        let later = Message {
            published_ms: Some(8),
            ..message(4, b"last")
        };
        assert!(read.contradiction(&found(Some(later))).is_some());
    }
}
