//! One subscription to the changes of a customer. It sends the present state if requested, then the missed changes,
//! then changes as they happen.
//!
//! A customer's revisions grow in the order of its events. So the newest revision that a subscriber has shows which
//! changes are new to it.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tandem_event_path::log::Offsets;
use tandem_model::message::Message;

use super::{
    LiveError,
    cursor::{self, CustomerPlace, InLog},
    customer_common::{Change, CustomerFeed, FEED, Seen},
    delivery::Delivery,
    heartbeat::Beat,
    item::{Chain, CustomerItem, CustomerSnapshot, CustomerUpdate, Heartbeat, published_at},
    log::{Attention::Prompt, BACKOFF, LogAway, LogReader, next_message},
    subscribers::{Channel, Subscription},
};
use crate::replica::{LONGEST_WAIT, ReplicaCustomer, Waited, event};

type Queue = Box<Subscription<Arc<Seen>>>;

pub(super) enum Phase {
    /// Reads the customer while changes collect in the queue.
    Snapshot(Queue),
    /// Continues after the state that the replica showed at the beginning. From these positions on, the log may have
    /// changes that the state lacks.
    Behind(Queue, Offsets),
    /// Continues after a cursor. The log has not been asked yet.
    Resume,
    /// Reads the log up to where the queue begins.
    CatchUp(Box<CatchUp>),
    /// Listens to the queue.
    Live(Queue),
    /// The subscription has ended.
    Over,
}

pub(super) struct CatchUp {
    reader: Box<dyn LogReader>,
    /// For each partition that is read, the next offset.
    seen: Offsets,
    /// The offsets to read up to.
    target: Offsets,
    queue: Queue,
}

/// A change to be sent when the replica shows it.
struct Pending {
    change: Arc<Change>,
    /// The subscriber's positions after the change.
    seen: Offsets,
    published_at: Option<DateTime<Utc>>,
    /// `None` for a change that is read again.
    delivery: Option<Arc<Delivery>>,
}

pub(super) struct CustomerSubscription {
    feed: CustomerFeed,
    id: String,
    place: CustomerPlace,
    chain: Chain,
    beat: Beat,
    pending: Option<Pending>,
    phase: Phase,
}

impl CustomerSubscription {
    pub(super) fn new(
        feed: CustomerFeed,
        id: String,
        place: CustomerPlace,
        after: Option<&str>,
        phase: Phase,
        heartbeat: Option<Duration>,
    ) -> Self {
        let beat = Beat::new(heartbeat, feed.shutdown.clock());
        let begin = match after {
            Some(after) => Some(after.into()),
            None => (!place.seen.is_empty()).then(|| place.encode(feed.log.as_ref())),
        };
        Self {
            feed,
            id,
            place,
            chain: Chain::from(begin),
            beat,
            pending: None,
            phase,
        }
    }

    /// The next item. `None` when the service stops.
    pub(super) async fn next(&mut self) -> Option<Result<CustomerItem, LiveError>> {
        loop {
            if let Some(pending) = self.pending.take() {
                match self.once_readable(pending).await {
                    Some(item) => return Some(Ok(item)),
                    None if self.feed.shutdown.is_requested() => return None,
                    None => continue,
                }
            }
            let step = match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Snapshot(queue) => {
                    let (item, missing) = self.snapshot().await?;
                    self.phase = Phase::Behind(queue, missing);
                    return Some(Ok(item));
                }
                Phase::Behind(queue, missing) => self.behind(queue, missing).await,
                Phase::Resume => self.resume().await,
                Phase::CatchUp(catch_up) => Ok(self.catch_up(catch_up).await),
                Phase::Live(queue) => self.listen(queue).await,
            };
            match step {
                Ok((phase, item)) => {
                    self.phase = phase;
                    if let Some(item) = item {
                        return Some(Ok(item));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn link(&mut self) -> (Arc<str>, Arc<str>) {
        let cursor = self.place.encode(self.feed.log.as_ref());
        if !self.chain.has_begun()
            && let Some(seen) = self.feed.subscribers.began()
        {
            let begin = CustomerPlace {
                seen: Arc::unwrap_or_clone(seen),
                ..CustomerPlace::of(&self.id)
            };
            self.chain = Chain::from(Some(begin.encode(self.feed.log.as_ref())));
        }
        let previous = self.chain.link(&cursor);
        self.beat.sent(self.feed.shutdown.clock());
        (cursor, previous)
    }

    /// A heartbeat. There is none until the feed has seen the log, because there is no position to resume from yet.
    fn heartbeat(&mut self) -> Option<CustomerItem> {
        if self.place.seen.is_empty() {
            self.beat.sent(self.feed.shutdown.clock());
            return None;
        }
        let (cursor, previous) = self.link();
        let at = self.feed.shutdown.clock().now().into();
        Some(CustomerItem::Heartbeat(Heartbeat {
            cursor,
            previous,
            at,
        }))
    }

    /// Reads the customer, and retries for as long as the store is away. Also returns where the log may have changes
    /// that the state lacks.
    async fn snapshot(&mut self) -> Option<(CustomerItem, Offsets)> {
        let shutdown = self.feed.shutdown.clone();
        let mut pauses = BACKOFF.pauses(shutdown.clock());
        let shown = loop {
            let pause = pauses.next_pause();
            match self.feed.shown(&self.id).await {
                Ok(shown) => break shown,
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a snapshot waits for the replica");
                }
            }
            if !shutdown.sleep(pause).await {
                return None;
            }
        };
        let missing = self.feed.missing(&self.id, &shown, &self.place.seen);
        self.place.revision = shown.revision();
        // The cursor steps back too, so that a subscriber that is disconnected here reads these changes when it
        // resumes.
        cursor::step_back(&mut self.place.seen, &missing);
        let (cursor, previous) = self.link();
        let item = CustomerItem::Snapshot(CustomerSnapshot {
            cursor,
            previous,
            customer: shown
                .customer
                .filter(|customer| !customer.erased)
                .map(Arc::new),
        });
        Some((item, missing))
    }

    /// Reads changes again that the feed has passed and the replica did not show. Usually there are none.
    async fn behind(
        &mut self,
        queue: Queue,
        missing: Offsets,
    ) -> Result<(Phase, Option<CustomerItem>), LiveError> {
        if missing.is_empty() {
            return Ok((Phase::Live(queue), None));
        }
        let shutdown = self.feed.shutdown.clone();
        let mut pauses = BACKOFF.pauses(shutdown.clock());
        loop {
            let open = open(&self.feed, &missing);
            let opened = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok((Phase::Over, None)),
                opened = self.beat.before_due(shutdown.clock(), open) => opened,
            };
            let pause = pauses.next_pause();
            match opened {
                Some(Ok((reader, from))) => {
                    // The positions of the feed now. The queue has everything after them.
                    let target = self.feed.subscribers.positions().unwrap_or_default();
                    let copied = |(partition, offset): (&i32, &i64)| (*partition, *offset);
                    let of_these = |(partition, _): &(i32, i64)| from.contains_key(partition);
                    let catch_up = CatchUp {
                        reader,
                        target: target.iter().map(copied).filter(of_these).collect(),
                        seen: from,
                        queue,
                    };
                    return Ok((Phase::CatchUp(Box::new(catch_up)), None));
                }
                Some(Err(error)) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a subscriber waits for the log");
                }
                None => return Ok((Phase::Behind(queue, missing), self.heartbeat())),
            }
            if !shutdown.sleep(pause).await {
                return Ok((Phase::Over, None));
            }
        }
    }

    /// Asks the log until it answers, and continues after the cursor.
    async fn resume(&mut self) -> Result<(Phase, Option<CustomerItem>), LiveError> {
        let shutdown = self.feed.shutdown.clone();
        let mut pauses = BACKOFF.pauses(shutdown.clock());
        loop {
            let look = look(&self.feed, &self.id, &self.place);
            let looked = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok((Phase::Over, None)),
                looked = self.beat.before_due(shutdown.clock(), look) => looked,
            };
            let pause = pauses.next_pause();
            match looked {
                Some(Ok(found)) => return found.map(|phase| (phase, None)),
                Some(Err(error)) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a subscriber waits for the log");
                }
                None => return Ok((Phase::Resume, self.heartbeat())),
            }
            if !shutdown.sleep(pause).await {
                return Ok((Phase::Over, None));
            }
        }
    }

    /// Reads one message of the log, until it reaches the beginning of the queue.
    async fn catch_up(&mut self, mut catch_up: Box<CatchUp>) -> (Phase, Option<CustomerItem>) {
        if cursor::has_reached(&catch_up.seen, &catch_up.target) {
            cursor::advance(&mut self.place.seen, &catch_up.target);
            return (Phase::Live(catch_up.queue), None);
        }
        let shutdown = self.feed.shutdown.clone();
        let (reader, seen) = (&mut catch_up.reader, &catch_up.seen);
        let log = self.feed.log.as_ref();
        let seen = || Arc::new(seen.clone());
        let arrival = next_message(log, reader, Prompt, seen, FEED, &shutdown);
        let message = match self.beat.before_due(shutdown.clock(), arrival).await {
            Some(Some(message)) => message,
            Some(None) => return (Phase::Over, None),
            None => return (Phase::CatchUp(catch_up), self.heartbeat()),
        };
        let next = catch_up
            .seen
            .entry(message.position.partition)
            .or_insert(message.position.offset);
        *next = (*next).max(message.position.offset + 1);
        let mut behind = self.place.seen.clone();
        cursor::advance(&mut behind, &catch_up.seen);
        match self.opened(&message).await {
            Some(change) => {
                self.wait_for(Arc::new(change), behind, published_at(&message), None);
            }
            None => self.place.seen = behind,
        }
        (Phase::CatchUp(catch_up), None)
    }

    async fn opened(&self, message: &Message) -> Option<Change> {
        if message.key.as_deref() != Some(&self.id) {
            return None;
        }
        let change = event::read(message).ok()?;
        if change.revision <= self.place.revision {
            return None;
        }
        self.feed.open(change).await
    }

    async fn listen(
        &mut self,
        mut queue: Queue,
    ) -> Result<(Phase, Option<CustomerItem>), LiveError> {
        let clock = self.feed.shutdown.clock().clone();
        let heard = {
            // Pinned here, so that the enclosing future holds it only once.
            let next = pin!(queue.next());
            self.beat.before_due(&clock, next).await
        };
        let found = match heard {
            Some(Some(found)) => found,
            Some(None) if queue.has_lagged() => {
                return Err(LiveError::Lagged {
                    cursor: Some(self.place.encode(self.feed.log.as_ref()).to_string()),
                });
            }
            Some(None) => return Ok((Phase::Over, None)),
            None => {
                // Everything before these positions that is for this subscriber is in the queue now.
                let positions = self.feed.subscribers.positions().unwrap_or_default();
                match queue.next_ready() {
                    Some(found) => found,
                    None if queue.has_lagged() => return Ok((Phase::Live(queue), None)),
                    None => {
                        cursor::advance(&mut self.place.seen, &positions);
                        return Ok((Phase::Live(queue), self.heartbeat()));
                    }
                }
            }
        };
        let mut behind = self.place.seen.clone();
        cursor::advance(&mut behind, &found.positions);
        if found.change.revision() > self.place.revision {
            let change = Arc::clone(&found.change);
            let delivery = Some(Arc::clone(&found.delivery));
            self.wait_for(change, behind, found.published_at, delivery);
        } else {
            self.place.seen = behind;
        }
        Ok((Phase::Live(queue), None))
    }

    fn wait_for(
        &mut self,
        change: Arc<Change>,
        seen: Offsets,
        published_at: Option<DateTime<Utc>>,
        delivery: Option<Arc<Delivery>>,
    ) {
        self.pending = Some(Pending {
            change,
            seen,
            published_at,
            delivery,
        });
    }

    /// The change when the replica holds it, or a heartbeat if that takes longer. `None` to try again, or when the
    /// service stops.
    async fn once_readable(&mut self, pending: Pending) -> Option<CustomerItem> {
        let shutdown = self.feed.shutdown.clone();
        let (id, revision) = (pending.change.id().to_owned(), pending.change.revision());
        let waiting = self
            .feed
            .replica
            .wait_for_revision(&id, revision, LONGEST_WAIT);
        let waited = tokio::select! {
            biased;
            () = shutdown.requested() => return None,
            waited = self.beat.before_due(shutdown.clock(), waiting) => waited,
        };
        let customer = match waited {
            Some(Ok(Waited::Arrived(held))) if held.revision == revision => Arc::from(held),
            Some(Ok(Waited::Arrived(_))) => match self.opened_late(&pending.change).await? {
                Some(customer) => customer,
                None => {
                    self.place.seen = pending.seen;
                    return None;
                }
            },
            Some(Ok(Waited::Behind(_))) => {
                self.pending = Some(pending);
                return None;
            }
            Some(Err(error)) => {
                tracing::warn!(feed = FEED, %error, "a subscriber waits for the replica");
                self.pending = Some(pending);
                let pause = BACKOFF.pauses(shutdown.clock()).next_pause();
                shutdown.sleep(pause).await;
                return None;
            }
            None => {
                self.pending = Some(pending);
                return self.heartbeat();
            }
        };
        self.place = CustomerPlace {
            seen: pending.seen,
            revision,
            ..self.place
        };
        if let Some(delivery) = &pending.delivery {
            delivery.goes_out(shutdown.clock());
        }
        let (cursor, previous) = self.link();
        Some(CustomerItem::Update(CustomerUpdate {
            cursor,
            previous,
            customer,
            published_at: pending.published_at,
        }))
    }
}

impl CustomerSubscription {
    /// The customer after a change that the replica has passed already. `Some(None)` if the change cannot be opened:
    /// the replica shows a newer state that needs no key, so this change is out of date. `None` when the service stops.
    async fn opened_late(&self, change: &Change) -> Option<Option<Arc<ReplicaCustomer>>> {
        let sealed = match change {
            Change::Open(customer) => return Some(Some(Arc::clone(customer))),
            Change::Sealed(change) => change.as_ref().clone(),
        };
        match self.feed.open(sealed).await? {
            Change::Open(customer) => Some(Some(customer)),
            Change::Sealed(_) => Some(None),
        }
    }
}

/// How to continue after a place. An error if the log does not answer now.
async fn look(
    feed: &CustomerFeed,
    id: &str,
    place: &CustomerPlace,
) -> Result<Result<Phase, LiveError>, LogAway> {
    let seen = &place.seen;
    feed.subscribers.begun().await;
    // The feed has begun, so the system of the log is known.
    if let Err(error) = place.check(feed.log.as_ref()) {
        return Ok(Err(error));
    }
    let (queue, positions) = feed.subscribers.join(Channel::Customer(id.to_owned()));
    let target = positions.unwrap_or_default();
    if *target == *seen {
        return Ok(Ok(Phase::Live(queue)));
    }
    let ends = feed.log.ends().await?;
    let from = match cursor::starting_points(seen, &BTreeSet::new(), &ends) {
        Ok(from) => from,
        Err(error) => return Ok(Err(error)),
    };
    let reader = feed.log.open(&from, Prompt).await?;
    let catch_up = CatchUp {
        reader,
        seen: from,
        target: Arc::unwrap_or_clone(target),
        queue,
    };
    Ok(Ok(Phase::CatchUp(Box::new(catch_up))))
}

/// Opens a reader at these positions, or at the beginning of the log if it no longer keeps them.
async fn open(
    feed: &CustomerFeed,
    missing: &Offsets,
) -> Result<(Box<dyn LogReader>, Offsets), LogAway> {
    let ends = feed.log.ends().await?;
    let from: Offsets = missing
        .iter()
        .filter_map(|(partition, offset)| {
            let (first, next) = ends.get(partition)?;
            Some((*partition, (*offset).clamp(*first, *next)))
        })
        .collect();
    let reader = feed.log.open(&from, Prompt).await?;
    Ok((reader, from))
}
