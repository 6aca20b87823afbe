//! Continues after a cursor: reads the log from there until it reaches the position where listening begins.

use std::{sync::Arc, time::Duration};

use tandem_event_path::log::Offsets;
use tandem_model::message::Position;

use super::{OrderSubscription, Phase};
use crate::{
    domain::OrderChangeEvent,
    live::{
        Interest, LiveError,
        audit_lookup::Lookup,
        cursor::{self, InLog, Place},
        deduplication::{Occurrence, SeenRevisions},
        held_back::Told,
        item::published_at,
        log::{Attention::Prompt, BACKOFF, LogAway, LogReader, next_message},
        order_common::{Common, FEED, read},
        seen::Seen,
        subscribers::Subscription,
    },
};

/// The maximum number of messages that are processed together while catching up.
const CATCH_UP: usize = 500;
/// How long catching up waits for one more message before it processes those that it has.
const GATHER: Duration = Duration::from_millis(5);
/// How long catching up waits for the audit trail. After that it continues, and changes without an answer are held
/// back.
const AUDIT_WAIT: Duration = Duration::from_secs(1);

pub(in crate::live) struct CatchUp {
    reader: Box<dyn LogReader>,
    memory: SeenRevisions,
    /// The offsets to read up to.
    target: Arc<Offsets>,
    /// The queue, from the time when the target is the position where listening begins. It joins late, so that little
    /// collects in it.
    subscriber: Option<Box<Subscription<Arc<Seen>>>>,
}

/// What is known of a change that has not been sent.
enum FirstOccurrence {
    /// It is a first occurrence. Its predecessor was read, or was in the log before this reader began.
    Follows,
    /// It is a first occurrence, and its predecessor has not been read.
    LeavesOut,
    /// The audit trail is asked.
    Asked(Arc<Lookup>),
}

impl OrderSubscription {
    /// Asks the log until it answers, and continues after the cursor.
    pub(super) async fn resume(&mut self) -> Result<Phase, LiveError> {
        let shutdown = self.feed.shutdown.clone();
        let clock = shutdown.clock().clone();
        let mut pauses = BACKOFF.pauses(&clock);
        loop {
            let look = look(&self.feed, &self.interest, &self.place);
            let looked = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(Phase::Over),
                looked = self.beat.before_due(&clock, look) => looked,
            };
            let pause = pauses.next_pause();
            match looked {
                Some(Ok(found)) => {
                    let (phase, from) = found?;
                    self.place.seen = from;
                    return Ok(phase);
                }
                Some(Err(error)) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a subscriber waits for the log");
                }
                None => {
                    self.nothing_happened();
                    return Ok(Phase::Resume);
                }
            }
            if !shutdown.sleep(pause).await {
                return Ok(Phase::Over);
            }
        }
    }

    /// Takes one step towards the target. When the target is reached, the subscription joins the feed, which sets the
    /// last target. When that is reached too, it listens. Messages that were read beyond it are heard again there, and
    /// are recognized by their offsets.
    pub(super) async fn catch_up(
        &mut self,
        mut catch_up: Box<CatchUp>,
    ) -> Result<Phase, LiveError> {
        let has_reread = self.place.held.len() <= self.held_back.len();
        if has_reread && cursor::has_reached(&self.place.seen, &catch_up.target) {
            if let Some(queue) = catch_up.subscriber {
                return Ok(Phase::Live(queue));
            }
            let (queue, positions) = self.feed.subscribers.join(self.interest.channel());
            catch_up.subscriber = Some(queue);
            catch_up.target = positions.unwrap_or_default();
            return Ok(Phase::CatchUp(catch_up));
        }
        let shutdown = self.feed.shutdown.clone();
        if !self.has_room_for(CATCH_UP) {
            let waited = self
                .beat
                .before_due(shutdown.clock(), self.held_back_may_be_told());
            let is_over = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(Phase::Over),
                waited = waited => waited.is_some(),
            };
            if !is_over {
                self.nothing_happened();
            }
            return Ok(Phase::CatchUp(catch_up));
        }
        let reader = &mut catch_up.reader;
        let log = self.feed.log.as_ref();
        let seen = || Arc::new(cursor::with_held(&self.place.seen, &self.place.held));
        let arrival = next_message(log, reader, Prompt, seen, FEED, &shutdown);
        let arrived = tokio::select! {
            biased;
            arrived = self.beat.before_due(shutdown.clock(), arrival) => arrived,
            () = self.held_back_may_be_told() => return Ok(Phase::CatchUp(catch_up)),
        };
        let first = match arrived {
            Some(Some(first)) => first,
            Some(None) => return Ok(Phase::Over),
            None => {
                self.nothing_happened();
                return Ok(Phase::CatchUp(catch_up));
            }
        };
        let mut messages = vec![first];
        while messages.len() < CATCH_UP
            && let Ok(Ok(message)) = shutdown
                .clock()
                .timeout(GATHER, catch_up.reader.next())
                .await
        {
            messages.push(message);
        }
        let read: Vec<(Position, Option<OrderChangeEvent>)> = messages
            .iter()
            .map(|message| {
                let news = self.place.is_news(message.position).then(|| read(message));
                let event = news.flatten().filter(|event| self.interest.wants(event));
                (message.position, event)
            })
            .collect();
        let first_occurrences = self.classify(&read, &mut catch_up.memory).await;
        let published = messages.iter().map(published_at);
        for (((position, event), first_occurrence), published_at) in
            read.into_iter().zip(first_occurrences).zip(published)
        {
            let is_news = self.place.is_news(position);
            let seen = Arc::make_mut(&mut self.place.seen);
            let next = seen.entry(position.partition).or_insert(0);
            *next = (*next).max(position.offset + 1);
            // Changes that were held back up to here have been read again, if the log still has them.
            let held_back = &self.held_back;
            self.place.held.retain(|held| {
                held.partition != position.partition
                    || held.offset > position.offset
                    || held_back.is_at(*held)
            });
            let (Some(event), Some(first_occurrence), true) = (event, first_occurrence, is_news)
            else {
                continue;
            };
            let (is_early, lookup) = match first_occurrence {
                FirstOccurrence::Follows => (false, None),
                FirstOccurrence::LeavesOut => (true, None),
                FirstOccurrence::Asked(lookup) => (false, Some(lookup)),
            };
            if let Some(event) = self.feed.open(event).await {
                let told = Told {
                    position,
                    event,
                    published_at,
                    lookup,
                    heard: None,
                };
                self.take_or_hold(told, is_early);
            }
        }
        Ok(Phase::CatchUp(catch_up))
    }

    /// Classifies each message: `None` if it is not wanted or is a repetition, otherwise what is known of its
    /// predecessor. Lookups for everything that memory does not know are made together.
    async fn classify(
        &self,
        read: &[(Position, Option<OrderChangeEvent>)],
        memory: &mut SeenRevisions,
    ) -> Vec<Option<FirstOccurrence>> {
        let audit_lookup = &self.feed.audit_lookup;
        let mut asked: Vec<Option<Arc<Lookup>>> = Vec::with_capacity(read.len());
        for (position, event) in read {
            asked.push(event.as_ref().and_then(|event| {
                memory.settle(&event.id);
                let is_unknown = memory.classify(event) == Occurrence::Unknown;
                is_unknown.then(|| audit_lookup.ask(event, *position))
            }));
        }
        let open: Vec<Arc<Lookup>> = asked.iter().flatten().cloned().collect();
        audit_lookup.all_within(&open, AUDIT_WAIT).await;
        let mut first_occurrences = Vec::with_capacity(read.len());
        for ((position, event), lookup) in read.iter().zip(asked) {
            first_occurrences.push(event.as_ref().and_then(|event| {
                // Earlier messages of the same batch may have brought answers.
                memory.settle(&event.id);
                let first_occurrence = match memory.classify(event) {
                    Occurrence::Repeated => return None,
                    Occurrence::New if memory.leaves_out(event) => FirstOccurrence::LeavesOut,
                    Occurrence::New => FirstOccurrence::Follows,
                    Occurrence::Unknown => {
                        let lookup = lookup.unwrap_or_else(|| audit_lookup.ask(event, *position));
                        memory.asked(event, &lookup);
                        return Some(FirstOccurrence::Asked(lookup));
                    }
                };
                memory.seen(event);
                Some(first_occurrence)
            }));
        }
        first_occurrences
    }
}

/// How to continue after a place, and the positions of the feed. An error if the log does not answer now.
async fn look(
    feed: &Common,
    interest: &Interest,
    place: &Place,
) -> Result<Result<(Phase, Arc<Offsets>), LiveError>, LogAway> {
    let Place { seen, held, .. } = place;
    feed.subscribers.begun().await;
    // The feed has begun, so the system of the log is known.
    if let Err(error) = place.check(feed.log.as_ref()) {
        return Ok(Err(error));
    }
    let (queue, positions) = feed.subscribers.join(interest.channel());
    let target = positions.unwrap_or_default();
    if target == *seen && held.is_empty() {
        return Ok(Ok((Phase::Live(queue), target)));
    }
    drop(queue);
    let ends = feed.log.ends().await?;
    let from = match cursor::starting_points(seen, held, &ends) {
        Ok(from) => from,
        Err(error) => return Ok(Err(error)),
    };
    let reader = feed
        .log
        .open(&cursor::with_held(&from, held), Prompt)
        .await?;
    let catch_up = CatchUp {
        reader,
        memory: SeenRevisions::of_the_past(),
        target,
        subscriber: None,
    };
    Ok(Ok((Phase::CatchUp(Box::new(catch_up)), Arc::new(from))))
}
