//! Processes waiting events again when their keys have arrived, and warns of those that have waited long.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tandem_model::message::Message;
use tandem_runtime::{clock::Instant, shutdown::Shutdown};

use super::{SOME, Waiting, place};
use crate::{
    data_keys::{KeyRing, Unopened},
    store::{DeadLetter, StoreError},
};

/// How often waiting events are tried even if no key arrives. Another instance may have kept or processed some.
const LOOK: Duration = Duration::from_secs(5);
/// Keys that arrive within this time are handled together.
const GATHER: Duration = Duration::from_millis(100);

/// Processes events that have waited.
#[async_trait]
pub trait Takes: Send + Sync + 'static {
    /// Processes these messages, in order of position. Returns for each why it still cannot be opened, or `None` if it
    /// was processed.
    ///
    /// # Errors
    /// When the store is unavailable. Some may then be processed. Processing them again does no harm.
    async fn take(&self, messages: &[Message]) -> Result<Vec<Option<Unopened>>, StoreError>;
}

impl Waiting {
    /// Warns of events that have waited long.
    fn warn(&self) {
        let now = DateTime::<Utc>::from(self.0.clock.now());
        for ((topic, position), wait) in self.known().long(now) {
            tracing::warn!(
                reader = self.0.reader,
                topic,
                partition = position.partition,
                offset = position.offset,
                key = wait.key,
                subject = wait.subject,
                reason = wait.reason,
                since = %wait.since,
                "an event waits for its data key"
            );
        }
    }

    /// Processes waiting events whenever keys arrive, in the background until the service stops.
    pub fn release(&self, takes: Arc<dyn Takes>, keys: &KeyRing, shutdown: &Shutdown) {
        let (waiting, keys, stop) = (self.clone(), keys.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let mut steps = keys.steps();
            let mut looked: Option<Instant> = None;
            loop {
                let is_due = looked.is_none_or(|looked| waiting.0.clock.since(looked) >= LOOK);
                if is_due || keys.shows_any(waiting.subjects().iter()) {
                    looked = Some(waiting.0.clock.instant());
                    if let Err(error) = waiting.take(takes.as_ref()).await {
                        tracing::warn!(reader = waiting.0.reader, %error, "waiting events cannot be taken now; trying again");
                    }
                }
                waiting.warn();
                tokio::select! {
                    biased;
                    () = stop.requested() => return,
                    _ = steps.changed(), if !waiting.known().waits.is_empty() => {}
                    () = waiting.0.changed.notified() => {}
                    () = waiting.0.clock.sleep(LOOK) => {}
                }
                if !stop.sleep(GATHER).await {
                    return;
                }
                steps.borrow_and_update();
            }
        });
    }

    /// Processes all events that can be opened now.
    async fn take(&self, takes: &dyn Takes) -> Result<(), StoreError> {
        self.load().await?;
        let mut after = None;
        loop {
            let some = self.page(after.as_ref(), SOME).await?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.id());
            let messages: Vec<Message> = some.iter().map(|(letter, _)| message(letter)).collect();
            let taken = takes.take(&messages).await?;
            for ((letter, subject), unopened) in some.iter().zip(taken) {
                if unopened.is_some() {
                    continue;
                }
                self.0.letters.unpark(&letter.id()).await?;
                self.known().remove(&place(letter));
                tracing::info!(
                    reader = self.0.reader,
                    topic = letter.topic,
                    partition = letter.partition,
                    offset = letter.offset,
                    subject,
                    "an event that waited for its data key is taken"
                );
            }
        }
        self.measure();
        Ok(())
    }
}

fn message(letter: &DeadLetter) -> Message {
    Message {
        topic: letter.topic.clone(),
        position: place(letter).1,
        key: Some(letter.key.clone()),
        headers: letter.headers.clone(),
        payload: letter.payload.clone(),
        published_ms: None,
    }
}
