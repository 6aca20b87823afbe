//! Detects whether the topic of keys is still the one that was read. The topic is compacted, so the evidence is its
//! identity, where it ends, and the record at the position of the last claim.

use std::{collections::BTreeMap, time::Duration};

use tandem_model::message::Message;
use tandem_runtime::backoff::Backoff;
use tokio::sync::watch;

use super::KeyRing;
use crate::{
    checkpoint::Checkpoint,
    log::{Attention, LogError, Offsets, TopicState, record_at},
    store::StoreError,
};

/// How long one record may take to be read.
const READ: Duration = Duration::from_secs(10);
/// The pauses while Kafka is unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

impl KeyRing {
    /// The present state of the topic, after comparing it with what was read.
    pub(super) async fn state(&self) -> Result<TopicState, LogError> {
        let before = self.held().next.clone();
        let state = self.0.log.topic(self.0.topic).await?;
        let is_another = self.held().compare(&before, &state);
        if is_another {
            self.tell_replaced();
        }
        Ok(state)
    }

    pub(super) fn tell_replaced(&self) {
        tracing::error!(
            topic = self.0.topic,
            "the topic of keys was made anew or lost its end; it is read again, and accounts publishes what it lacks"
        );
        self.0.replaced.send_modify(|count| *count += 1);
        // A reader may have no other reason to read to the end of the topic.
        let (ring, shutdown) = (self.clone(), self.0.shutdown.clone());
        self.0.shutdown.spawn(async move {
            let reading = shutdown.retry(
                BACKOFF,
                || ring.caught_up(),
                |error, pause| {
                    tracing::warn!(%error, ?pause, "the new topic of keys cannot be read yet; trying again");
                },
            );
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                _ = reading => {}
            }
        });
    }

    /// Changes when the topic is found to be another one than the one that was read.
    #[must_use]
    pub fn replaced(&self) -> watch::Receiver<u64> {
        self.0.replaced.subscribe()
    }

    /// The partitions that differ from those that were read, each with the difference, until an operator accepts
    /// them. With `closely`, the records at the positions of claims are read too, because a topic that was created
    /// again may have grown past the read position.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub(crate) async fn look(&self, closely: bool) -> Result<BTreeMap<i32, String>, StoreError> {
        let state = match self.state().await {
            Ok(state) => state,
            // The topic was there when it was read.
            Err(LogError::NoPartitions(_)) => {
                let gone = "the partition is not there any more";
                let read = self.held().next.clone().into_keys();
                return Ok(read.map(|partition| (partition, gone.to_owned())).collect());
            }
            Err(error) => return Err(self.away(&error)),
        };
        if closely {
            let claims = self.held().placed_claims(&state.ends);
            for claim in claims {
                if self.has_another_at(&claim).await? {
                    self.held().replace(&format!(
                        "another record is at offset {} of partition {} than the claim that was there: the topic was made anew",
                        claim.position.offset, claim.position.partition
                    ));
                    self.tell_replaced();
                    break;
                }
                self.held().found_in_place(&claim);
            }
        }
        Ok(self.held().replaced.clone())
    }

    /// Accepts the topic as it is now.
    pub(crate) fn accept(&self) {
        self.held().replaced.clear();
    }

    /// Whether another record is at the position of this one, or the same one that was written at another time. No
    /// record there proves nothing.
    async fn has_another_at(&self, message: &Message) -> Result<bool, StoreError> {
        let at: Offsets = [(message.position.partition, message.position.offset)].into();
        let tail = self.0.log.tail(self.0.topic, &at, Attention::Prompt);
        let tail = tail.map_err(|error| self.away(&error))?;
        let read = record_at(tail.as_ref(), message.position);
        let read = self.0.shutdown.clock().timeout(READ, read).await;
        let found = read
            .map_err(|_| StoreError::Unavailable(format!("{} was silent", self.0.topic)))?
            .map_err(|error| self.away(&error))?;
        Ok(found.is_some_and(|found| {
            let times = found.published_ms.zip(message.published_ms);
            Checkpoint::of(&found) != Checkpoint::of(message)
                || times.is_some_and(|(is, was)| is != was)
        }))
    }

    pub(super) fn away(&self, error: &LogError) -> StoreError {
        StoreError::Unavailable(format!("{}: {error}", self.0.topic))
    }
}
