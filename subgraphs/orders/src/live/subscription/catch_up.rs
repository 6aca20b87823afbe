//! Goes on behind a cursor: reads the log from there until it has come to where listening begins.

use std::{sync::Arc, time::Duration};

use tandem_event_path::log::Offsets;
use tandem_model::message::Position;

use super::{OrderSubscription, Phase};
use crate::{
    domain::OrderChangeEvent,
    live::{
        Interest, LiveError,
        cursor::{self, Place},
        deduplication::{Occurrence, SeenRevisions},
        held_back::Told,
        item::published_at,
        log::{Attention::Prompt, FIRST_PAUSE, LONGEST_PAUSE, LogAway, LogReader, next_message},
        orders::{FEED, OrderFeed, Seen, read},
        subscribers::Subscription,
        verdicts::Case,
    },
};

/// Messages that are caught up with at once.
const CATCH_UP: usize = 500;
/// How long catching up waits for one more message before it works on those that it has.
const GATHER: Duration = Duration::from_millis(5);
/// How long catching up waits for the audit trail before it goes on and holds back what the trail has not judged.
const AUDIT_WAIT: Duration = Duration::from_secs(1);

pub(in crate::live) struct CatchUp {
    reader: Box<dyn LogReader>,
    memory: SeenRevisions,
    /// Where to read to.
    target: Offsets,
    /// The queue, once the target is where listening begins. Taken late, so that it holds little meanwhile.
    subscriber: Option<Subscription<Arc<Seen>>>,
}

/// What is known of a change that has not been told.
enum FirstSighting {
    /// It is told for the first time, and the one before it is there, or was before this reader began.
    Follows,
    /// It is told for the first time, and the one before it has not been read.
    LeavesOut,
    /// What the audit trail says, or will say.
    Asked(Arc<Case>),
}

impl OrderSubscription {
    /// Looks at the log until it answers, and goes on behind the cursor.
    pub(super) async fn resume(&mut self) -> Result<Phase, LiveError> {
        let shutdown = self.feed.shutdown.clone();
        let clock = shutdown.clock().clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let look = look(&self.feed, &self.interest, &self.place);
            let looked = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(Phase::Over),
                looked = self.beat.before_due(&clock, look) => looked,
            };
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
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Goes a step towards the target. When it is reached, takes a queue, which sets the last target; when that is reached,
    /// listens. What was read beyond it is heard again there and known by its offset.
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
        let seen = || cursor::with_held(&self.place.seen, &self.place.held);
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
        let first_sightings = self.classify(&read, &mut catch_up.memory).await;
        let published = messages.iter().map(published_at);
        for (((position, event), first_sighting), published_at) in
            read.into_iter().zip(first_sightings).zip(published)
        {
            let is_news = self.place.is_news(position);
            let next = self.place.seen.entry(position.partition).or_insert(0);
            *next = (*next).max(position.offset + 1);
            // What was held back up to here was read again, if the log has it.
            let held_back = &self.held_back;
            self.place.held.retain(|held| {
                held.partition != position.partition
                    || held.offset > position.offset
                    || held_back.is_at(*held)
            });
            let (Some(event), Some(first_sighting), true) = (event, first_sighting, is_news) else {
                continue;
            };
            let (is_early, case) = match first_sighting {
                FirstSighting::Follows => (false, None),
                FirstSighting::LeavesOut => (true, None),
                FirstSighting::Asked(case) => (false, Some(case)),
            };
            if let Some(event) = self.feed.open(event).await {
                let told = Told {
                    position,
                    event,
                    published_at,
                    case,
                    heard: None,
                };
                self.take_or_hold(told, is_early);
            }
        }
        Ok(Phase::CatchUp(catch_up))
    }

    /// For each message whether it may be a first occurrence of what is wanted, and what is known of the change before it. What memory
    /// does not know is asked for at once.
    async fn classify(
        &self,
        read: &[(Position, Option<OrderChangeEvent>)],
        memory: &mut SeenRevisions,
    ) -> Vec<Option<FirstSighting>> {
        let verdicts = &self.feed.verdicts;
        let mut asked: Vec<Option<Arc<Case>>> = Vec::with_capacity(read.len());
        for (position, event) in read {
            asked.push(event.as_ref().and_then(|event| {
                memory.settle(&event.id);
                let is_unknown = memory.classify(event) == Occurrence::Unknown;
                is_unknown.then(|| verdicts.ask(event, *position))
            }));
        }
        let open: Vec<Arc<Case>> = asked.iter().flatten().cloned().collect();
        verdicts.all_within(&open, AUDIT_WAIT).await;
        let mut first_sightings = Vec::with_capacity(read.len());
        for ((position, event), case) in read.iter().zip(asked) {
            first_sightings.push(event.as_ref().and_then(|event| {
                // What came before in this very batch may have told more.
                memory.settle(&event.id);
                let first_sighting = match memory.classify(event) {
                    Occurrence::Repeated => return None,
                    Occurrence::New if memory.leaves_out(event) => FirstSighting::LeavesOut,
                    Occurrence::New => FirstSighting::Follows,
                    Occurrence::Unknown => {
                        let case = case.unwrap_or_else(|| verdicts.ask(event, *position));
                        memory.asked(event, &case);
                        return Some(FirstSighting::Asked(case));
                    }
                };
                memory.seen(event);
                Some(first_sighting)
            }));
        }
        first_sightings
    }
}

/// How to go on from a place, and how far it has come in each partition; an error where the log does not answer now.
async fn look(
    feed: &OrderFeed,
    interest: &Interest,
    place: &Place,
) -> Result<Result<(Phase, Offsets), LiveError>, LogAway> {
    let Place { seen, held, .. } = place;
    feed.subscribers.begun().await;
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
    Ok(Ok((Phase::CatchUp(Box::new(catch_up)), from)))
}
