//! Reads the topic of keys from its beginning, or from where it was read to before; then follows it. Reads to the
//! present end on request.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tandem_model::message::{Message, Position};
use tandem_runtime::backoff::Backoff;

use super::{CATCH_UP, KeyRing, Role};
use crate::{
    claims::CLAIM,
    data_keys::held::Held,
    log::{Arrival, Attention, Ends, LogError, Offsets, PublishError, Tail},
    refused_records,
    signing::Unverified,
    store::{DeadLetter, StoreError, dead_letters::alone},
};

/// How long to wait for the end of the topic before reading up to it explicitly. A topic may end in offsets without
/// records, which a plain tail does not pass.
const SOON: Duration = Duration::from_secs(1);
/// How many records are applied before other tasks have their turn. Judging one takes some 50 µs.
const AT_ONCE: usize = 64;
/// The most claims that are held: the first ones, which say who owns the topics, and the newest ones.
const MOST_CLAIMS: usize = 256;
/// The consumer name in dead letters of the topic of keys.
const CONSUMER: &str = "data-keys";
/// The pauses while Kafka is unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long the broker may delay keys to batch them when no caller waits for them.
const PATIENCE: Attention = Attention::Patient(Duration::from_millis(500));

/// An arrival and those that are ready behind it, as many as are applied at once.
pub(super) fn with_ready(arrival: Arrival, log: &dyn Tail) -> impl Iterator<Item = Arrival> {
    let ready = std::iter::from_fn(|| log.next_ready());
    std::iter::once(arrival).chain(ready).take(AT_ONCE)
}

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

    /// Follows the topic from the present position. Returns only when the client cannot go on, or when reading must
    /// be restarted.
    async fn read(&self) -> Result<(), LogError> {
        self.0.log.ready().await;
        let mut replaced = self.0.replaced.subscribe();
        let state = self.state().await?;
        self.recall(&state).await?;
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
        // Once the claims are read, the owner needs the keys only for rebuilds. Readers wait for keys.
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
                () = self.0.begins_again.notified() => return Ok(()),
                arrival = log.next() => arrival?,
                Ok(()) = is_claimed.changed() => {
                    if self.0.role == Role::Owner || self.held().is_to_be_read_again {
                        return Ok(());
                    }
                    continue;
                }
            };
            // Records that are ready are applied in one step, because waking the waiting tasks is the expensive part.
            let mut arrivals = with_ready(arrival, log.as_ref());
            let mut last = BTreeMap::new();
            let is_the_same = arrivals.all(|arrival| self.arrived(arrival, &mut read, &mut last));
            self.held().has_read(last);
            self.step();
            if !is_the_same {
                self.tell_replaced();
                return Ok(());
            }
            // At a start all keys are ready, and requests may share the thread.
            tokio::task::yield_now().await;
        }
    }

    /// Applies what one reader was given. `read` holds the offsets behind what it was given before. Returns whether the
    /// topic is still the one that was read.
    fn arrived(
        &self,
        arrival: Arrival,
        read: &mut Offsets,
        last: &mut BTreeMap<i32, Message>,
    ) -> bool {
        let Arrival::Record(message) = arrival else {
            return true;
        };
        let Position { partition, offset } = message.position;
        let next = read.insert(partition, offset + 1).unwrap_or(offset);
        if self.held().goes_back(message.position, next) {
            return false;
        }
        self.take(&message);
        last.insert(partition, message);
        true
    }

    fn take(&self, message: &Message) {
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
        self.judge_and_take(held, message);
    }

    /// Applies a record that is no claim if it counts. It waits if it is not known yet whose signatures count.
    pub(super) fn judge_and_take(&self, mut held: MutexGuard<'_, Held>, message: &Message) {
        let is_judged = self.0.signing.is_none() || *self.0.is_claimed.borrow();
        if !is_judged || held.is_looking {
            held.unjudged.push_back(message.clone());
            drop(held);
            return self.take_early();
        }
        held.judging += 1;
        drop(held);
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
        self.held().judging -= 1;
    }

    /// Whether the topic's owner has signed a message.
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

    /// Looks for the key that signed the first waiting record, and then applies all waiting records. The claim that
    /// announces the key precedes them on the topic, and is judged elsewhere.
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

    /// Applies the waiting records. The first `looked_for` of them are judged for good, whatever key signed them.
    /// Returns false if the key of a later one must be looked for.
    pub(super) fn take_unjudged(&self, mut looked_for: usize) -> bool {
        loop {
            let message = {
                let mut held = self.held();
                let Some(message) = held.unjudged.pop_front() else {
                    // Under the same lock, so that no record is queued in between.
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

    /// Applies a record if the topic's owner has signed it.
    fn take_judged(&self, message: &Message, judged: Result<(), Unverified>) {
        let Some(subject) = message.key.as_deref() else {
            return;
        };
        if let Err(reason) = judged {
            return self.refuse(subject, message, &reason.to_string());
        }
        let is_revived = self.held().take(self.0.topic, subject, message);
        if is_revived {
            // Until then, nothing can be read with a repeated key. If this fails, the next start detects it again.
            self.put_right(subject);
        }
    }

    /// Stores a record as a dead letter because no authorized writer has signed it.
    fn refuse(&self, subject: &str, message: &Message, reason: &str) {
        let Some(signing) = &self.0.signing else {
            return;
        };
        let Position { partition, offset } = message.position;
        // The run that read the record first has counted it.
        let was_counted = self.held().is_older(message.position);
        if !was_counted {
            refused_records::count(self.0.topic);
        }
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
        let is_lost = self.held().refuse(subject, message.position);
        let letters = Arc::clone(&signing.letters);
        self.0.shutdown.spawn(async move {
            // The record stays in the topic, so the next start stores it if this fails.
            if let Err(error) = letters.park(vec![letter]).await {
                tracing::warn!(%error, partition, offset, "a dead letter of the topic of keys is not kept");
            }
        });
        if is_lost {
            self.put_right(subject);
        }
    }

    /// Publishes the known state of a subject behind a record that says something else, because compaction keeps only
    /// the newest record. Only the owner does this. It tries until Kafka accepts or refuses the record,
    /// or the topic shows it.
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
            // The older part may show the state soon.
            tokio::select! {
                biased;
                () = stop.requested() => return,
                () = ring.older_part_judged() => {}
            }
            let mut pauses = BACKOFF.pauses(stop.clock());
            loop {
                // State that is not held is repaired by the comparison with the store, which runs at every start.
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

    /// Waits until everything that is in the topic now is read and judged.
    pub(super) async fn caught_up(&self) -> Result<Ends, StoreError> {
        let ends = self.catch_up().await?;
        let mut steps = self.0.steps.subscribe();
        let judged = steps.wait_for(|_| !self.held().is_looking);
        match self.0.shutdown.clock().timeout(CATCH_UP, judged).await {
            Ok(Ok(_)) => {
                let mut held = self.held();
                // If reading was restarted meanwhile, it has not reached this end.
                held.is_behind_itself &= held.is_to_be_read_again;
                Ok(ends)
            }
            _ => Err(StoreError::Unavailable(format!(
                "{}: whose signatures count is still being found out",
                self.0.topic
            ))),
        }
    }

    /// Waits until all these subjects are judged, or everything that is in the topic now.
    pub(super) async fn shown_or_caught_up(
        &self,
        subjects: &HashSet<String>,
    ) -> Result<(), StoreError> {
        let mut steps = self.0.steps.subscribe();
        tokio::select! {
            biased;
            _ = steps.wait_for(|_| self.is_judged(subjects)) => Ok(()),
            read = self.caught_up() => read.map(drop),
        }
    }

    /// Waits until everything that is in the topic now is read.
    pub(super) async fn catch_up(&self) -> Result<Ends, StoreError> {
        let clock = self.0.shutdown.clock();
        let begun = clock.instant();
        let ends = self.read_on().await?;
        let left = CATCH_UP.saturating_sub(clock.since(begun));
        match clock.timeout(left, self.read_older_part()).await {
            Ok(()) => Ok(ends),
            Err(_) => Err(StoreError::Unavailable(format!(
                "{}: what was read of it before this start is still being read again",
                self.0.topic
            ))),
        }
    }

    /// Waits until everything that is in the topic now is read, except for the older part.
    pub(super) async fn read_on(&self) -> Result<Ends, StoreError> {
        let away = |reason: String| StoreError::Unavailable(format!("{}: {reason}", self.0.topic));
        let state = self.state().await;
        let state = state.map_err(|error| away(error.to_string()))?;
        self.begun().await?;
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

    /// Reads on to these ends, past offsets without records: transaction markers, and records that compaction
    /// removed. Skips records that another tail has read meanwhile.
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
                        self.held().has_read([(partition, message)].into());
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
