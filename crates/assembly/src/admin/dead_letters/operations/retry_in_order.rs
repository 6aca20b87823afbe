//! Retries the dead letters that match a filter, key by key and in order. Each retry uses the message in its topic if
//! the letter is not complete.

use std::{collections::BTreeSet, time::Duration};

use tandem_event_path::{
    log::{Attention, LogError, record_at},
    store::{DeadLetter, DeadLetterFilter, dead_letters::stands_alone},
};
use tandem_model::{
    cloudevents::REFUSED,
    message::{Message, Position, Rejection},
};

use super::{DeadLetterOperations, ROUND, RetryError};

/// The time limit for reading a message from its topic.
const READING: Duration = Duration::from_secs(10);
/// How many refused keys a report names with their reasons. Further ones are only counted.
const NAMED: usize = 100;
/// A key counts as free when no letter of it has come for this long. This is longer than a consumer caches its list of
/// parked keys, so that letters that it parks meanwhile are retried too.
const QUIET: Duration = Duration::from_secs(5);

impl DeadLetterOperations {
    /// Retries letters key by key, in order, until none is left or all remaining keys are refused.
    pub(super) async fn retry(&self, filter: &DeadLetterFilter) -> Result<(), RetryError> {
        let mut refused: BTreeSet<(String, String)> = BTreeSet::new();
        let clock = self.inner.shutdown.clock();
        let mut quiet_since = clock.instant();
        let mut taken_any = false;
        loop {
            let mut taken_now = false;
            let mut after = None;
            loop {
                let page = self
                    .inner
                    .letters
                    .dead_letters(filter, after.as_ref(), ROUND)
                    .await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id());
                for letter in page {
                    let ordering_key = (letter.consumer.clone(), letter.key.clone());
                    if refused.contains(&ordering_key) {
                        continue;
                    }
                    match self.retry_one(&letter).await {
                        Ok(true) => {
                            self.close(&letter, "retried").await?;
                            self.note(|job| job.done += 1);
                            (taken_now, taken_any) = (true, true);
                        }
                        // No consumer of this service has this name. An earlier version had one.
                        Ok(false) => {}
                        Err(RetryError::Refused(rejection)) => {
                            self.note(|job| {
                                job.refused_keys += 1;
                                if job.refused.len() < NAMED {
                                    job.refused.push((letter.key.clone(), rejection.reason));
                                }
                            });
                            refused.insert(ordering_key);
                        }
                        Err(away) => return Err(away),
                    }
                }
            }
            if taken_now {
                quiet_since = clock.instant();
            } else if !taken_any || clock.since(quiet_since) >= QUIET {
                return Ok(());
            }
            clock.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Processes a letter again. Returns whether there is a consumer for it.
    async fn retry_one(&self, letter: &DeadLetter) -> Result<bool, RetryError> {
        let retries = &self.inner.retries;
        let Some(by) = retries
            .iter()
            .find(|retry| retry.consumer() == letter.consumer)
        else {
            return Ok(false);
        };
        by.retry(self.message(letter).await?).await?;
        Ok(true)
    }

    /// The message of a letter. If the letter is cut, or was refused for its signature, the message comes from its
    /// topic. Then its signature is verified again.
    async fn message(&self, letter: &DeadLetter) -> Result<Message, RetryError> {
        let position = Position {
            partition: letter.partition,
            offset: letter.offset,
        };
        let was_refused = letter.headers.iter().any(|(name, _)| name == REFUSED);
        if letter.is_cut || was_refused {
            let topic = self.inner.retries.iter().map(|retry| retry.topic());
            let Some(topic) = topic.into_iter().find(|topic| *topic == letter.topic) else {
                let unknown = "it is not kept whole, and its topic is none of this service's";
                return Err(RetryError::Refused(Rejection::new(unknown)));
            };
            let found = self.read_whole(topic, position).await?;
            return found.ok_or_else(|| {
                let gone = "it is not kept whole, and is not in its topic any more";
                RetryError::Refused(Rejection::new(gone))
            });
        }
        // A letter that stands alone had no key. Its projection must not use the letter's generated name as a key.
        let key = Some(letter.key.clone()).filter(|key| !stands_alone(key));
        Ok(Message {
            topic: letter.topic.clone(),
            position,
            key,
            headers: letter.headers.clone(),
            payload: letter.payload.clone(),
            published_ms: None,
        })
    }

    /// The message at a position in its topic; `None` if it no longer exists.
    async fn read_whole(
        &self,
        topic: &'static str,
        position: Position,
    ) -> Result<Option<Message>, RetryError> {
        let from = [(position.partition, position.offset)].into();
        let tail = self.inner.log.tail(topic, &from, Attention::Prompt)?;
        let reading = record_at(tail.as_ref(), position);
        let read = self.inner.shutdown.clock().timeout(READING, reading).await;
        read.unwrap_or_else(|_| Err(LogError::Unavailable("it is not read in time".to_owned())))
            .map_err(RetryError::Read)
    }
}
