//! Retrying the dead letters that a filter takes, key by key and in order, each with its message as its topic has it.

use std::{collections::BTreeSet, time::Duration};

use tandem_event_path::{
    log::{Attention, LogError, record_at},
    store::{DeadLetter, DeadLetterFilter, dead_letters::stands_alone},
};
use tandem_model::{
    cloudevents::REFUSED,
    message::{Message, Position, Rejection},
};

use super::{DeadLetterOffice, ROUND, RetryError};

/// How long reading a message from its topic may take.
const READING: Duration = Duration::from_secs(10);
/// Refused keys whose reasons a report names; of more only the number.
const NAMED: usize = 100;
/// A key counts as free when no letter of it has come for this long: longer than a consumer holds on to its list of
/// parked keys, so that what it parked meanwhile is retried too.
const QUIET: Duration = Duration::from_secs(5);

impl DeadLetterOffice {
    /// Retries letters key by key, in order, until none is left or one is still refused.
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
                        // No consumer of this service's is called so: a version before this one had it.
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

    /// Takes a letter once more. Answers whether there is somebody to take it.
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

    /// The message of a letter: of one that is cut, or was refused for its signature, as its topic has it. A signature is judged anew.
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
        // A letter that stands alone had no key, and its projection must not take its name for one.
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

    /// The message at a place, as its topic has it; `None` if it is not there any more.
    async fn read_whole(
        &self,
        topic: &'static str,
        position: Position,
    ) -> Result<Option<Message>, RetryError> {
        let from = [(position.partition, position.offset)].into();
        let tail = self.inner.log.tail(topic, &from, Attention::Prompt)?;
        let reading = record_at(tail.as_ref(), position);
        let read = self.inner.shutdown.clock().timeout(READING, reading).await;
        read.unwrap_or_else(|_| Err(LogError::Away("it is not read in time".to_owned())))
            .map_err(RetryError::Read)
    }
}
