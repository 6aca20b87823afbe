//! Reads the topic of keys from its beginning, follows it from then on, and reads to its present end on request.

use std::{sync::Arc, time::Duration};

use tandem_model::message::{Message, Position};
use tandem_runtime::backoff::Backoff;

use super::{CATCH_UP, KeyRing, Role};
use crate::{
    claims::CLAIM,
    log::{Arrival, Attention, Ends, LogError, Offsets, PublishError},
    refused_records,
    signing::Unverified,
    store::{DeadLetter, StoreError, dead_letters::alone},
};

/// How long the end is waited for before it is looked whether there is anything up to it: the end of a topic may be holes.
const SOON: Duration = Duration::from_secs(1);
/// So many records are taken before others have their turn: each takes some 50 µs to judge.
const AT_ONCE: usize = 64;
/// So many claims of the topics are held: the first ones, which say whose the topics are, and the newest.
const MOST_CLAIMS: usize = 256;
/// The consumer that dead letters of the topic of keys name.
const CONSUMER: &str = "data-keys";
/// The pauses while Kafka is away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long keys may wait at the broker for others where nobody waits for them.
const PATIENCE: Attention = Attention::Patient(Duration::from_millis(500));

impl KeyRing {
    pub(super) async fn run(self) {
        let shutdown = self.0.shutdown.clone();
        let mut pauses = BACKOFF.pauses(shutdown.clock());
        loop {
            let pause = pauses.next_pause();
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                read = self.read() => match read {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::warn!(topic = self.0.topic, %error, ?pause, "data keys cannot be read; trying again");
                    }
                }
            }
            if !shutdown.sleep(pause).await {
                return;
            }
        }
    }

    /// Reads on from where it was, for ever; ends only when the client cannot go on, or is to read in another way.
    async fn read(&self) -> Result<(), LogError> {
        self.0.log.ready().await;
        let mut replaced = self.0.replaced.subscribe();
        let state = self.state().await?;
        let start: Offsets = {
            let mut held = self.held();
            held.is_to_be_read_again = false;
            state
                .ends
                .iter()
                .map(|(partition, (low, _))| {
                    let next = held.next.get(partition).copied().unwrap_or(*low);
                    (*partition, next)
                })
                .collect()
        };
        // The owner needs the keys for rebuilds alone, once the claims are read; readers wait for them.
        let mut is_claimed = self.0.is_claimed.subscribe();
        let attention = if *is_claimed.borrow_and_update() && self.0.role == Role::Owner {
            PATIENCE
        } else {
            Attention::Prompt
        };
        let log = self.0.log.tail(self.0.topic, &start, attention)?;
        let mut read = start.clone();
        self.held().next = start;
        self.step();
        loop {
            let arrival = tokio::select! {
                biased;
                // The new topic is read from its beginning.
                Ok(()) = replaced.changed() => return Ok(()),
                arrival = log.next() => arrival?,
                Ok(()) = is_claimed.changed() => {
                    if self.0.role == Role::Owner || self.held().is_to_be_read_again {
                        return Ok(());
                    }
                    continue;
                }
            };
            // What is here already in one step: waking those who wait is the dear part.
            let ready = std::iter::from_fn(|| log.next_ready());
            let mut arrivals = std::iter::once(arrival).chain(ready).take(AT_ONCE);
            let is_the_same = arrivals.all(|arrival| self.arrived(&arrival, &mut read));
            self.step();
            if !is_the_same {
                self.tell_replaced();
                return Ok(());
            }
            // A start finds all keys ready, and shares its thread with requests.
            tokio::task::yield_now().await;
        }
    }

    /// Takes what one reader was given, which has read so far before. Answers whether the topic is still the one that was read.
    fn arrived(&self, arrival: &Arrival, read: &mut Offsets) -> bool {
        let Arrival::Record(message) = arrival else {
            return true;
        };
        let Position { partition, offset } = message.position;
        let next = read.insert(partition, offset + 1).unwrap_or(offset);
        if self.held().goes_back(message.position, next) {
            return false;
        }
        self.take(message);
        true
    }

    fn take(&self, message: &Message) {
        {
            let mut held = self.held();
            if held.is_to_be_read_again {
                return;
            }
            let Position { partition, offset } = message.position;
            // Another reader may have been faster.
            let next = held.next.entry(partition).or_default();
            *next = (*next).max(offset + 1);
            if let Some(key) = message.key.as_deref()
                && key.starts_with(CLAIM)
            {
                held.lost_claims.remove(key);
                if held.claims.len() == MOST_CLAIMS {
                    held.claims.remove(MOST_CLAIMS / 2);
                }
                held.claims.push(message.clone());
                held.placed.get_or_insert_with(|| message.clone());
                return;
            }
            let is_judged = self.0.signing.is_none() || *self.0.is_claimed.borrow();
            if !is_judged || held.is_looking {
                held.unjudged.push_back(message.clone());
                drop(held);
                return self.take_early();
            }
        }
        match self.judge(message) {
            Err(reason) if self.is_doubtful(&reason) => {
                let mut held = self.held();
                held.unjudged.push_back(message.clone());
                if !std::mem::replace(&mut held.is_looking, true) {
                    self.0.shutdown.spawn(self.clone().look_for_keys());
                }
            }
            judged => self.take_judged(message, judged),
        }
    }

    /// Whether a message is signed by the topic's owner.
    pub(super) fn judge(&self, message: &Message) -> Result<(), Unverified> {
        let signing = self.0.signing.as_ref();
        signing.map_or(Ok(()), |signing| signing.signatures.judge(message))
    }

    fn is_doubtful(&self, reason: &Unverified) -> bool {
        let signing = self.0.signing.as_ref();
        signing.is_some_and(|signing| {
            let clock = self.0.shutdown.clock();
            signing.signatures.is_doubtful(reason, clock)
        })
    }

    /// Has the key be looked for that the first of the waiting messages is signed with, and takes them all: the claim that tells of it came
    /// before them, and is judged elsewhere.
    pub(super) async fn look_for_keys(self) {
        let Some(signing) = &self.0.signing else {
            return;
        };
        loop {
            let looked_for = self.held().unjudged.len();
            signing.signatures.look_again(self.0.shutdown.clock()).await;
            if self.take_unjudged(looked_for) {
                self.show_refused();
                return self.step();
            }
        }
    }

    /// Takes the messages that wait, the first `looked_for` of them whatever they are signed with. Answers false when the first of the others
    /// is to be looked for.
    pub(super) fn take_unjudged(&self, mut looked_for: usize) -> bool {
        loop {
            let message = {
                let mut held = self.held();
                let Some(message) = held.unjudged.pop_front() else {
                    // Under the same lock: what is read from here on need not wait.
                    held.is_looking = false;
                    return true;
                };
                message
            };
            let judged = self.judge(&message);
            if looked_for == 0
                && let Err(reason) = &judged
                && self.is_doubtful(reason)
            {
                self.held().unjudged.push_front(message);
                return false;
            }
            looked_for = looked_for.saturating_sub(1);
            self.take_judged(&message, judged);
        }
    }

    /// Takes a message if it was found to be signed by the topic's owner.
    fn take_judged(&self, message: &Message, judged: Result<(), Unverified>) {
        let Some(subject) = message.key.as_deref() else {
            return;
        };
        if let Err(reason) = judged {
            return self.refuse(subject, message, &reason.to_string());
        }
        let is_revived = self.held().take(self.0.topic, subject, message);
        if is_revived {
            // Nothing is readable by a repeated key meanwhile; the next start finds it again.
            self.put_right(subject);
        }
    }

    /// Sets a message aside that nobody who may write to the topic has signed.
    fn refuse(&self, subject: &str, message: &Message, reason: &str) {
        let Some(signing) = &self.0.signing else {
            return;
        };
        refused_records::count(self.0.topic);
        let Position { partition, offset } = message.position;
        tracing::error!(
            topic = self.0.topic,
            partition,
            offset,
            subject,
            reason,
            "a record of the topic of keys is set aside as a dead letter"
        );
        let now = self.0.shutdown.clock().now().into();
        let letter = DeadLetter::new(
            CONSUMER,
            message.clone(),
            alone(message),
            reason.to_owned(),
            now,
        );
        self.held().count_as_lost(subject);
        let letters = Arc::clone(&signing.letters);
        self.0.shutdown.spawn(async move {
            // It stays in the topic: the next start sets it aside if this fails.
            if let Err(error) = letters.park(vec![letter]).await {
                tracing::warn!(%error, partition, offset, "a dead letter of the topic of keys is not kept");
            }
        });
        self.put_right(subject);
    }

    /// Publishes again what is known of a subject, behind a record that says something else: compaction keeps the newest one alone. That is
    /// the owner's part, and goes on until Kafka has taken it or the topic shows it.
    pub(super) fn put_right(&self, subject: &str) {
        if self.0.role != Role::Owner {
            return;
        }
        let (ring, subject) = (self.clone(), subject.to_owned());
        let (mut claimed, stop) = (self.0.is_claimed.subscribe(), self.0.shutdown.clone());
        self.0.shutdown.spawn(async move {
            tokio::select! {
                biased;
                () = stop.requested() => return,
                _ = claimed.wait_for(|is_claimed| *is_claimed) => {}
            }
            let mut pauses = BACKOFF.pauses(stop.clock());
            loop {
                // What is not held is put right by the comparison with the store, which every start makes.
                let held = ring.held().keys.get(subject.as_str()).cloned();
                let Some(known) = held.filter(|known| known.at.is_none()) else {
                    return;
                };
                let pause = pauses.next_pause();
                match ring.publish(&subject, known.wrapped.as_deref()).await {
                    Ok(()) => {
                        tracing::info!(subject, "what is known of a data key was published again");
                        return;
                    }
                    Err(PublishError::Refused(reason)) => {
                        tracing::error!(subject, reason, "what is known of a data key cannot be published again");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(subject, %error, ?pause, "what is known of a data key is not published again yet; trying again");
                    }
                }
                if !stop.sleep(pause).await {
                    return;
                }
            }
        });
    }

    /// Waits until everything is read, and judged, that is in the topic now.
    pub(super) async fn caught_up(&self) -> Result<Ends, StoreError> {
        let ends = self.catch_up().await?;
        let mut steps = self.0.steps.subscribe();
        let judged = steps.wait_for(|_| !self.held().is_looking);
        match self.0.shutdown.clock().timeout(CATCH_UP, judged).await {
            Ok(Ok(_)) => {
                let mut held = self.held();
                // Begun again meanwhile, it has not come so far.
                held.is_behind_itself &= held.is_to_be_read_again;
                Ok(ends)
            }
            _ => Err(StoreError::Away(format!(
                "{}: whose signatures count is still being found out",
                self.0.topic
            ))),
        }
    }

    /// Waits until everything is read that is in the topic now.
    pub(super) async fn catch_up(&self) -> Result<Ends, StoreError> {
        let away = |reason: String| StoreError::Away(format!("{}: {reason}", self.0.topic));
        let state = self.state().await;
        let state = state.map_err(|error| away(error.to_string()))?;
        let ends = state.ends;
        let mut steps = self.0.steps.subscribe();
        let reached = |_: &u64| {
            let held = self.held();
            ends.iter().all(|(partition, (low, high))| {
                low == high || held.next.get(partition).is_some_and(|next| next >= high)
            })
        };
        let clock = self.0.shutdown.clock();
        if clock
            .timeout(SOON, steps.wait_for(reached))
            .await
            .is_ok_and(|reached| reached.is_ok())
        {
            return Ok(ends);
        }
        let reading = async {
            let _one_for_all = self.0.reading_on.lock().await;
            self.read_to(&ends).await
        };
        match clock.timeout(CATCH_UP, reading).await {
            Ok(Ok(())) if self.held().is_to_be_read_again => Err(away(
                "it is being read once more from its beginning".to_owned(),
            )),
            Ok(Ok(())) => Ok(ends),
            Ok(Err(error)) => Err(away(error.to_string())),
            Err(_) => Err(away("its end was not reached in time".to_owned())),
        }
    }

    /// Reads on to these ends, past whatever holes are there: markers of transactions, and what was compacted. What another has read meanwhile is not
    /// read again.
    async fn read_to(&self, ends: &Ends) -> Result<(), LogError> {
        let mut left: Offsets = {
            let held = self.held();
            let next = |partition: &i32, low: i64| {
                let next = held.next.get(partition).copied().unwrap_or(low);
                (*partition, next.max(low))
            };
            ends.iter()
                .map(|(partition, (low, high))| (next(partition, *low), *high))
                .filter(|((_, next), high)| next < high)
                .map(|(next, _)| next)
                .collect()
        };
        if left.is_empty() {
            return Ok(());
        }
        let log = self.0.log.tail(self.0.topic, &left, Attention::Prompt)?;
        while !left.is_empty() {
            match log.next().await? {
                Arrival::Record(message) => {
                    let Position { partition, offset } = message.position;
                    let next = self.held().next.get(&partition).copied();
                    if next.is_none_or(|next| next <= offset) {
                        self.take(&message);
                    }
                    if ends
                        .get(&partition)
                        .is_some_and(|(_, high)| offset + 1 >= *high)
                    {
                        left.remove(&partition);
                    }
                }
                Arrival::End(partition) => {
                    left.remove(&partition);
                    if let Some((_, high)) = ends.get(&partition) {
                        let mut held = self.held();
                        let next = held.next.entry(partition).or_default();
                        *next = (*next).max(*high);
                    }
                }
            }
        }
        self.step();
        Ok(())
    }
}
