//! Parks what a projection cannot apply: dead letters with the later messages of their keys, and events that wait for
//! their data key.

use std::sync::atomic::Ordering;

use chrono::DateTime;
use tandem_model::message::{Message, Position, Rejection};

use super::{PARKED_REFRESH, Runner};
use crate::{
    data_keys::Unopened,
    fault::{self, Fault},
    projection::Projection,
    store::{
        DeadLetter, DeadLetterFilter,
        dead_letters::{alone, ordering_key, stands_alone},
    },
};

impl<P: Projection> Runner<P> {
    /// Decodes a message. Its ordering key is computed only if it may matter: while keys are parked, or if the message
    /// cannot be processed.
    pub(super) fn decoded(&self, message: Message) -> Decoded<P::Item> {
        let content = self.projection.decode(&message);
        let key = (!self.parked.is_empty() || content.is_err())
            .then(|| key_of(self.projection.as_ref(), &message, &content));
        Decoded {
            message,
            content,
            key,
        }
    }

    /// Whether an earlier message of the same key holds this one back, by the parked keys as they were last read.
    pub(super) fn is_parked(&self, decoded: &Decoded<P::Item>) -> bool {
        let key = decoded.key.as_ref();
        key.is_some_and(|key| self.parked.contains(key))
    }

    /// Splits a batch into messages to process and messages to park, in order.
    pub(super) fn sort(&mut self, batch: Vec<Decoded<P::Item>>) -> Sorted<P::Item> {
        let mut sorted = Sorted {
            messages: Vec::with_capacity(batch.len()),
            items: Vec::with_capacity(batch.len()),
            letters: Vec::new(),
            settled: Vec::new(),
        };
        for Decoded {
            message,
            content,
            key,
        } in batch
        {
            let key = match key {
                Some(key) => key,
                None if !self.parked.is_empty() => {
                    key_of(self.projection.as_ref(), &message, &content)
                }
                // Nothing is parked and this message can be processed, so its key does not matter.
                None => String::new(),
            };
            let is_parked = self.parked.contains(&key);
            let reason = match content {
                Ok(item) if self.projection.settles(&item) => {
                    if self.parked.remove(&key) {
                        sorted.letters.retain(|letter| letter.key != key);
                        sorted.settled.push(key);
                    }
                    sorted.take(message, item);
                    continue;
                }
                Ok(item) if !is_parked => {
                    sorted.take(message, item);
                    continue;
                }
                Err(rejection) if !is_parked => rejection.reason,
                _ => "an earlier message of this key is a dead letter".to_owned(),
            };
            let now = DateTime::from(self.clock.now());
            let letter = DeadLetter::new(self.projection.name(), message, key, reason, now);
            tracing::warn!(
                projection = self.projection.name(),
                topic = letter.topic,
                partition = letter.partition,
                offset = letter.offset,
                key = letter.key,
                reason = letter.reason,
                "message set aside as a dead letter"
            );
            if !stands_alone(&letter.key) {
                self.parked.insert(letter.key.clone());
            }
            sorted.letters.push(letter);
        }
        sorted
    }

    /// Removes the parked messages of a settled key.
    pub(super) async fn settle(
        &mut self,
        key: &str,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        let name = self.projection.name();
        let removed = self
            .until_done("dead letters cannot be removed", read_meanwhile, || {
                self.dead_letters.unpark_key(name, key)
            })
            .await?;
        if removed > 0 {
            tracing::info!(
                projection = name,
                key,
                letters = removed,
                "an erasure settled this key; its dead letters are removed"
            );
            self.count_parked(read_meanwhile).await?;
        }
        Some(())
    }

    /// Opens decoded messages. The store keeps those that cannot be opened now, until their key arrives. `None` when
    /// the service stops before.
    pub(super) async fn opened(
        &mut self,
        messages: Vec<Message>,
        items: Vec<P::Item>,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<Vec<(Position, P::Item)>> {
        let Some(waiting) = self.projection.waiting() else {
            let places = messages.into_iter().map(|message| message.position);
            return Some(places.zip(items).collect());
        };
        let keys = self
            .until_done("data keys cannot be told", read_meanwhile, || {
                self.projection.keys(&items)
            })
            .await?;
        let mut open = Vec::with_capacity(items.len());
        let mut kept: Vec<(Message, Unopened)> = Vec::new();
        for (message, item) in messages.into_iter().zip(items) {
            match self.projection.open(item, &keys) {
                Ok(item) => open.push((message.position, item)),
                Err(unopened) => {
                    self.processing.waits(message.position);
                    kept.push((message, unopened));
                }
            }
        }
        if !kept.is_empty() && !fault::is_on(Fault::NotWaited) {
            self.until_done("waiting events cannot be kept", read_meanwhile, || {
                waiting.keep(kept.clone())
            })
            .await?;
        }
        Some(open)
    }

    /// Parks dead letters in the store, then copies them to the dead letter topic.
    pub(super) async fn set_aside(
        &mut self,
        letters: &[DeadLetter],
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        metrics::counter!("dead_letters_total", "projection" => self.projection.name())
            .increment(letters.len() as u64);
        self.until_done("dead letters cannot be parked", read_meanwhile, || {
            self.dead_letters.park(letters.to_vec())
        })
        .await?;
        self.count_parked(read_meanwhile).await?;
        self.copies.copy(letters).await;
        Some(())
    }

    /// Reads the parked keys again after a rebalance, at intervals while there are some, and when a message of a parked
    /// key arrives. The last case matters because an operator may have discarded the key's letters. The message would
    /// then be parked although no letter comes before it.
    pub(super) async fn refresh_parked(
        &mut self,
        concerned: bool,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        let reassigned = self.member.was_reassigned();
        let stale = self.status.held_back() > 0
            && self
                .parked_read
                .is_none_or(|read| self.clock.since(read) >= PARKED_REFRESH);
        if !reassigned && !stale && !concerned {
            return Some(());
        }
        self.read_parked(read_meanwhile).await
    }

    /// Reads the parked keys and reports them.
    pub(super) async fn read_parked(&mut self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        let name = self.projection.name();
        let keys = self
            .until_done("the parked keys cannot be read", read_meanwhile, || {
                self.dead_letters.parked_keys(name)
            })
            .await?;
        self.parked = keys.into_iter().filter(|key| !stands_alone(key)).collect();
        self.parked_read = Some(self.clock.instant());
        self.count_parked(read_meanwhile).await
    }

    /// Counts the dead letters and reports the count.
    async fn count_parked(&self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        let own = DeadLetterFilter {
            consumer: Some(self.projection.name().to_owned()),
            key: None,
        };
        let letters = self
            .until_done("dead letters cannot be counted", read_meanwhile, || {
                self.dead_letters.count(&own)
            })
            .await?;
        self.status.0.held_back.store(letters, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("dead_letters", "projection" => self.projection.name()).set(letters as f64);
        let parked = self.parked.len() as u64;
        self.status.0.parked.store(parked, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("dead_letter_keys", "projection" => self.projection.name())
            .set(parked as f64);
        Some(())
    }
}

/// A decoded message.
pub(super) struct Decoded<I> {
    pub(super) message: Message,
    pub(super) content: Result<I, Rejection>,
    /// The ordering key, if it was computed.
    pub(super) key: Option<String>,
}

/// The ordering key of a message. A message never overtakes a dead letter of its key.
fn key_of<P: Projection>(
    projection: &P,
    message: &Message,
    content: &Result<P::Item, Rejection>,
) -> String {
    match content {
        Err(rejection) if rejection.stands_alone => alone(message),
        Err(_) => ordering_key(message, None),
        Ok(item) => ordering_key(message, Some(projection.subject(item))),
    }
}

/// A batch, split.
pub(super) struct Sorted<I> {
    /// Messages to process. `items` holds the decoded content of each at the same index.
    pub(super) messages: Vec<Message>,
    pub(super) items: Vec<I>,
    pub(super) letters: Vec<DeadLetter>,
    /// Keys that were settled.
    pub(super) settled: Vec<String>,
}

impl<I> Sorted<I> {
    fn take(&mut self, message: Message, item: I) {
        self.messages.push(message);
        self.items.push(item);
    }
}
