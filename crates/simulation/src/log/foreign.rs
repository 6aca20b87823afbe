//! Records that none of our services writes: records without keys, tombstones, events of other systems, data keys and
//! tombstones in the name of our customers, transactions that stay open or are aborted.

use tandem_event_path::signing::SIGNATURE;
use tandem_model::{
    cloudevents,
    message::{Message, Position},
};

use super::Cluster;
use crate::chance::draw;

/// The header that marks records that none of our services wrote.
const FOREIGN: &str = "simulated-foreign";

/// In whose name events are forged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forgers {
    /// In our name or in the name of another system.
    #[default]
    Anybody,
    /// Only in the name of another system, as a second system on the same topics would write them.
    OtherSystems,
}

/// A record that means nothing to our services.
fn noise(topic: &str) -> Message {
    let dice = draw(|chance| chance.below(4));
    Message {
        topic: topic.to_owned(),
        position: Position {
            partition: 0,
            offset: 0,
        },
        key: (dice != 0).then(|| format!("foreign-{dice}")),
        headers: vec![(FOREIGN.to_owned(), b"noise".to_vec())],
        payload: match dice {
            1 => None,
            2 => Some(b"{\"id\":".to_vec()),
            _ => Some(br#"{"id":"foreign","revision":1}"#.to_vec()),
        },
        published_ms: None,
    }
}

/// An event in the form of ours that says that a customer was erased.
fn forgery(of: &Message) -> Option<Message> {
    let mut told: serde_json::Value = serde_json::from_slice(of.payload.as_deref()?).ok()?;
    let revision = told.get("revision")?.as_i64()?;
    let fields = told.as_object_mut()?;
    fields.remove("sealed");
    fields.insert("revision".to_owned(), (revision + 1).into());
    fields.insert("changeType".to_owned(), "ERASED".into());
    let mut forged = of.clone();
    forged
        .headers
        .retain(|(name, _)| name != cloudevents::SYSTEM);
    forged
        .headers
        .push((FOREIGN.to_owned(), b"forged".to_vec()));
    forged.payload = serde_json::to_vec(&told).ok();
    Some(forged)
}

/// Whether the headers of a record say that none of our services wrote it.
#[must_use]
pub fn is_foreign(headers: &[(String, Vec<u8>)]) -> bool {
    headers.iter().any(|(name, _)| name == FOREIGN)
}

/// A record that replaces one of ours on the topic of keys, written by somebody without a signing key: another data
/// key, or a tombstone. It carries the signature of the record that it replaces, or none.
fn forged_key(of: &Message) -> Message {
    let (is_tombstone, is_bare) = draw(|chance| (chance.happens(400), chance.happens(700)));
    let mut forged = of.clone();
    if is_bare {
        forged.headers.retain(|(name, _)| name != SIGNATURE);
    }
    forged
        .headers
        .push((FOREIGN.to_owned(), b"forged key".to_vec()));
    forged.payload = (!is_tombstone).then(|| {
        let number = draw(crate::chance::Chance::number);
        format!(r#"{{"wrapped":"forged-{number:016x}"}}"#).into_bytes()
    });
    // The tombstone of an erased customer is identical to ours, including its signature. Without the signature it is a
    // forgery.
    if forged.payload == of.payload {
        forged.headers.retain(|(name, _)| name != SIGNATURE);
    }
    forged
}

impl Cluster {
    /// A foreign producer writes noise to a topic.
    pub fn make_noise(&self, topic: &str) {
        self.append(topic, noise(topic));
    }

    /// A foreign producer writes an event that erases one of our customers.
    pub fn forge(&self, topic: &str) {
        let Some(mut forged) = self.some_forgery(topic) else {
            return;
        };
        // Another system names itself. A forger in our name has no key to sign with.
        let odds = self.state().odds.other_system;
        if draw(|chance| chance.happens(odds)) {
            let system = (cloudevents::SYSTEM.to_owned(), b"another".to_vec());
            forged.headers.push(system);
        }
        self.append(topic, forged);
    }

    /// A foreign producer writes to the topic of keys. It gives one of our customers another data key or a tombstone,
    /// or it repeats an earlier record of ours for that customer, including its signature.
    pub fn forge_key(&self, topic: &str) {
        let ledger = self.ledger();
        let messages = ledger.iter().map(|(_, message)| message);
        // Claims are judged on their own.
        let is_claim = |it: &Message| it.key.as_deref().is_none_or(|key| key.starts_with('!'));
        let keys: Vec<&Message> = messages
            .filter(|it| it.topic == topic && !is_foreign(&it.headers) && !is_claim(it))
            .collect();
        let Some(of) = draw(|chance| chance.pick(&keys).copied()) else {
            return;
        };
        let is_repeated = draw(|chance| chance.happens(300));
        let written = if is_repeated {
            of.clone()
        } else {
            forged_key(of)
        };
        self.world().note(|| {
            let how = if is_repeated { "repeats" } else { "forges" };
            format!("somebody {how} what {topic} says of {:?}", of.key)
        });
        self.append(topic, written);
    }

    fn some_forgery(&self, topic: &str) -> Option<Message> {
        let ledger = self.ledger();
        let is_event =
            |it: &&Message| it.topic == topic && it.payload.is_some() && !is_foreign(&it.headers);
        let messages = ledger.iter().map(|(_, message)| message);
        let events: Vec<&Message> = messages.filter(is_event).collect();
        draw(|chance| chance.pick(&events).copied().and_then(forgery))
    }

    /// A foreign producer begins a transaction in a topic and ends it later. The records of an aborted transaction must
    /// never be read.
    pub fn transact(&self, topic: &'static str, open_for: std::time::Duration) {
        let commits = draw(|chance| chance.happens(400));
        let number = self.world().number();
        let forged = self.some_forgery(topic).filter(|_| !commits);
        let record = forged.unwrap_or_else(|| noise(topic));
        let index = self.change(topic, |topic| {
            let index = record
                .key
                .as_deref()
                .map_or(0, |key| topic.partition_of(key));
            let partition = topic.partitions.get_mut(index)?;
            partition.append(i32::try_from(index).ok()?, Some(number), Some(record));
            Some(index)
        });
        let Some(index) = index.flatten() else {
            return;
        };
        self.world()
            .note(|| format!("a transaction is open in {topic}/{index}"));
        let cluster = self.clone();
        self.world().later(open_for, move || {
            let seen = cluster.change(topic, |topic| {
                let partition = topic.partitions.get_mut(index)?;
                let partition_number = i32::try_from(index).ok()?;
                Some(partition.end_transaction(partition_number, number, commits))
            });
            cluster.saw(seen.flatten().unwrap_or_default());
            cluster.world().note(|| {
                let how = if commits {
                    "is committed"
                } else {
                    "is aborted"
                };
                format!("the transaction in {topic}/{index} {how}")
            });
        });
    }
}
