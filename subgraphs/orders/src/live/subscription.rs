//! One subscription to the changes of orders: the snapshot if requested, then missed changes, then live changes.

mod catch_up;

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::future::OptionFuture;
use tandem_event_path::{log::Offsets, store::StoreError};
use tandem_runtime::clock::{Clock, Instant};

use super::{
    Interest, LiveError,
    cursor::{self, InLog, Place},
    delivery::Delivery,
    heartbeat::Beat,
    held_back::{HELD_AT_MOST, HeldBack, Released, Told},
    item::{Chain, Heartbeat, OrderItem, OrderSnapshot, OrderUpdate},
    log::BACKOFF,
    order_common::{Common, FEED},
    seen::Seen,
    snapshot::Page,
    subscribers::Subscription,
};
use crate::domain::OrderChangeEvent;
use catch_up::CatchUp;

pub(super) enum Phase {
    /// A snapshot is to be read. Nothing was done for it yet.
    Begin,
    /// Reads a snapshot. Changes collect in the queue meanwhile, if there is one.
    Snapshot(Option<Box<Subscription<Arc<Seen>>>>),
    /// Continues after a position. The log has not been asked yet.
    Resume,
    /// Reads the log after that position.
    CatchUp(Box<CatchUp>),
    /// Listens to the queue.
    Live(Box<Subscription<Arc<Seen>>>),
    /// The subscription has ended.
    Over,
}

/// The next item to send, and the cursor after it.
struct Ready {
    cursor: Arc<str>,
    what: What,
}

enum What {
    Page(Page),
    Change(
        Box<OrderChangeEvent>,
        Option<DateTime<Utc>>,
        Option<Arc<Delivery>>,
    ),
    /// A change that the feed delivered to all its listeners at once.
    Heard(Arc<Seen>),
    Nothing,
}

pub(super) struct OrderSubscription {
    feed: Arc<Common>,
    interest: Interest,
    /// Only later changes are sent: for a subscriber that joined before the feed saw the log and looks back.
    pub(super) since: Option<DateTime<Utc>>,
    place: Place,
    /// The changes that were read of those that `place` names as held back. The others must be read again.
    held_back: HeldBack,
    chain: Chain,
    beat: Beat,
    phase: Phase,
    /// Whether the store has passed the barrier that makes everything before `place` visible.
    has_begun_snapshot: AtomicBool,
    ready: VecDeque<Ready>,
}

impl OrderSubscription {
    pub(super) fn new(
        feed: Arc<Common>,
        interest: Interest,
        place: Place,
        chain: Chain,
        phase: Phase,
        heartbeat: Option<Duration>,
    ) -> Self {
        let beat = Beat::new(heartbeat, feed.shutdown.clock());
        Self {
            feed,
            interest,
            since: None,
            place,
            held_back: HeldBack::default(),
            chain,
            beat,
            phase,
            has_begun_snapshot: AtomicBool::new(false),
            ready: VecDeque::new(),
        }
    }

    /// The next item. `None` when the service stops.
    pub(super) async fn next(&mut self) -> Option<Result<OrderItem, LiveError>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    // Ten thousand idle subscriptions must not keep spare capacity.
                    self.ready = VecDeque::new();
                }
                return Some(Ok(self.give(ready)));
            }
            if self.release().await {
                continue;
            }
            // The boxes keep the state of rare phases out of the future of a subscription that listens.
            let step = match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Begin => Box::pin(self.begin_snapshot()).await,
                Phase::Snapshot(queue) => Box::pin(self.snapshot(queue)).await,
                Phase::Resume => Box::pin(self.resume()).await,
                Phase::CatchUp(catch_up) => Box::pin(self.catch_up(catch_up)).await,
                Phase::Live(queue) => self.listen(queue).await,
            };
            match step {
                Ok(phase) => self.phase = phase,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn give(&mut self, Ready { cursor, what }: Ready) -> OrderItem {
        if !self.chain.has_begun()
            && let Some(began) = self.feed.subscribers.began()
        {
            self.chain = Chain::from(Some(self.cursor_at(began)));
        }
        let previous = self.chain.link(&cursor);
        let clock = self.feed.shutdown.clock();
        self.beat.sent(clock);
        match what {
            What::Page(Page {
                orders, complete, ..
            }) => OrderItem::Snapshot(OrderSnapshot {
                cursor,
                previous,
                orders,
                complete,
            }),
            What::Change(event, published_at, delivery) => {
                if let Some(delivery) = delivery {
                    delivery.goes_out(clock);
                }
                OrderItem::Update(OrderUpdate {
                    cursor,
                    previous,
                    change_type: event.change_type,
                    published_at,
                    order: Arc::new(event.into_order()),
                    templates: None,
                })
            }
            What::Heard(seen) => {
                seen.delivery.goes_out(clock);
                OrderItem::Update(OrderUpdate {
                    cursor,
                    previous,
                    change_type: seen.event.change_type,
                    published_at: seen.published_at,
                    order: seen.order(),
                    templates: Some(Arc::clone(&seen.templates)),
                })
            }
            What::Nothing => OrderItem::Heartbeat(Heartbeat {
                cursor,
                previous,
                at: clock.now().into(),
            }),
        }
    }

    /// The cursor of every subscriber with the same filter that has heard everything up to these positions.
    fn cursor_at(&self, positions: Arc<Offsets>) -> Arc<str> {
        let place = Place::of(self.interest.in_short()).at(positions);
        place.encode(self.feed.log.as_ref())
    }

    fn push(&mut self, what: What) {
        let log = self.feed.log.as_ref();
        let cursor = match &what {
            What::Heard(seen) if self.place.is_just(&seen.positions, log) => {
                seen.cursor(&self.interest, || self.place.encode(log))
            }
            _ => self.place.encode(log),
        };
        self.ready.push_back(Ready { cursor, what });
    }

    /// Queues a heartbeat. There is none until the feed has seen the log: there is no position to resume from.
    fn nothing_happened(&mut self) {
        if self.place.seen.is_empty() {
            self.beat.sent(self.feed.shutdown.clock());
        } else {
            self.push(What::Nothing);
        }
    }

    /// Sends a change or holds it back. [`super::held_back`] lists the reasons for holding a change back.
    fn take_or_hold(&mut self, mut told: Told, mut is_early: bool) {
        if !self.interest.wants(&told.event) {
            return;
        }
        if let Some(answer) = told.lookup.as_ref().and_then(|lookup| lookup.answer()) {
            if !answer.is_first {
                self.place.held.remove(&told.position);
                return;
            }
            told.lookup = None;
            is_early = answer.predecessor.is_some_and(|it| self.place.is_news(it));
        }
        let Told {
            position,
            event,
            lookup,
            ..
        } = &told;
        let is_open = lookup.is_none() && event.sealed.is_none();
        if is_open && !is_early && !self.held_back.holds(&event.id) {
            self.take(told);
            return;
        }
        if !self.place.held.contains(position) && self.place.held.len() >= HELD_AT_MOST {
            metrics::counter!("live_changes_untold_total").increment(1);
            tracing::warn!(
                feed = FEED,
                order = event.id,
                revision = event.revision,
                "too many changes are held back; this one is not told live"
            );
            return;
        }
        self.place.held.insert(*position);
        let now = self.feed.shutdown.clock().instant();
        self.held_back.hold(told, is_early, now);
    }

    /// Takes what no longer needs to be held back. Returns whether there was any.
    async fn release(&mut self) -> bool {
        let (clock, opener) = (self.feed.shutdown.clock(), &self.feed.opener);
        let shows_any = |subjects: &_| opener.shows_any(subjects);
        if !self.held_back.looks(clock.instant(), shows_any) {
            return false;
        }
        let subjects = self.held_back.subjects();
        let keys = match Box::pin(opener.keys_of(&subjects)).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::debug!(feed = FEED, %error, "what is held back waits for data keys");
                return false;
            }
        };
        let now = clock.instant();
        let place = &self.place;
        let is_news = |position| place.is_news(position);
        let Released { told, repeated } = self.held_back.release(&keys, is_news, now);
        for position in &repeated {
            self.place.held.remove(position);
        }
        let is_any = !told.is_empty() || !repeated.is_empty();
        told.into_iter().for_each(|told| self.take(told));
        is_any
    }

    /// Queues an open change, unless the snapshot contains it.
    fn take(&mut self, told: Told) {
        let Told {
            position,
            event,
            published_at,
            heard,
            ..
        } = told;
        self.place.held.remove(&position);
        if self.is_new(&event) {
            self.push(match heard {
                Some(seen) if seen.event.sealed.is_none() => What::Heard(seen),
                heard => {
                    let delivery = heard.map(|seen| Arc::clone(&seen.delivery));
                    What::Change(Box::new(event), published_at, delivery)
                }
            });
        }
    }

    /// Whether the snapshot does not contain a change.
    fn is_new(&mut self, event: &OrderChangeEvent) -> bool {
        let Some(known) = self.place.ahead.get(&event.id).copied() else {
            return true;
        };
        if event.revision >= known {
            self.place.ahead.remove(&event.id);
        }
        event.revision > known
    }

    /// Joins the feed at its present positions. Everything that was published before them is in the store.
    async fn begin_snapshot(&mut self) -> Result<Phase, LiveError> {
        let shutdown = self.feed.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(Phase::Over),
            () = self.feed.subscribers.begun() => {}
        }
        let (queue, positions) = self.feed.subscribers.join(self.interest.channel());
        self.place = Place {
            seen: positions.unwrap_or_default(),
            snapshot: Some(String::new()),
            ..Place::of(self.interest.in_short())
        };
        if !self.chain.has_begun() {
            let begin = self.cursor_at(Arc::clone(&self.place.seen));
            self.chain = Chain::from(Some(begin));
        }
        Ok(Phase::Snapshot(Some(queue)))
    }

    /// Queues one page.
    async fn snapshot(
        &mut self,
        queue: Option<Box<Subscription<Arc<Seen>>>>,
    ) -> Result<Phase, LiveError> {
        let Some(behind) = self.place.snapshot.clone() else {
            return Ok(match queue.filter(|queue| !queue.has_lagged()) {
                Some(queue) => Phase::Live(queue),
                None => Phase::Resume,
            });
        };
        let shutdown = self.feed.shutdown.clone();
        let read = self.read_page(&behind);
        let page = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(Phase::Over),
            page = self.beat.before_due(shutdown.clock(), read) => page,
        };
        let Some(page) = page else {
            self.nothing_happened();
            return Ok(Phase::Snapshot(queue));
        };
        self.place.ahead.extend(page.ahead.iter().cloned());
        self.place.snapshot = match page.orders.last() {
            Some(last) if !page.complete => Some(last.id.clone()),
            _ => None,
        };
        self.push(What::Page(page));
        Ok(Phase::Snapshot(queue))
    }

    async fn try_page(&self, behind: &str) -> Result<Page, StoreError> {
        let snapshots = &self.feed.snapshots;
        if !self.has_begun_snapshot.load(Ordering::Relaxed) {
            snapshots.begin().await?;
            self.has_begun_snapshot.store(true, Ordering::Relaxed);
        }
        snapshots
            .page(&self.interest, behind, &self.place.seen)
            .await
    }

    /// Reads a page, and retries for as long as the store is away.
    async fn read_page(&self, behind: &str) -> Page {
        let clock = self.feed.shutdown.clock();
        let mut pauses = BACKOFF.pauses(clock);
        loop {
            let pause = pauses.next_pause();
            match self.try_page(behind).await {
                Ok(page) => return page,
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a snapshot waits for the store");
                }
            }
            clock.sleep(pause).await;
        }
    }

    async fn listen(
        &mut self,
        mut queue: Box<Subscription<Arc<Seen>>>,
    ) -> Result<Phase, LiveError> {
        let clock = self.feed.shutdown.clock().clone();
        // The queue is bounded meanwhile. If it overflows, the subscriber gets a cursor to resume at.
        let has_room = self.has_room_for(1);
        let heard = {
            // Pinned here, so that the enclosing future holds each of these only once.
            let next = pin!(async {
                if !has_room {
                    std::future::pending::<()>().await;
                }
                queue.next().await
            });
            let hearing = pin!(self.beat.before_due(&clock, next));
            // Changes are rarely held back, so the state for that is boxed only when needed.
            let may_be_told =
                (self.held_back.len() > 0).then(|| Box::pin(self.held_back_may_be_told()));
            let may_be_told = OptionFuture::from(may_be_told);
            tokio::select! {
                biased;
                heard = hearing => Some(heard),
                Some(()) = may_be_told => None,
            }
        };
        let Some(heard) = heard else {
            return Ok(Phase::Live(queue));
        };
        match heard {
            Some(Some(found)) => self.hear(&found),
            Some(None) if queue.has_lagged() => {
                return Err(LiveError::Lagged {
                    cursor: Some(self.place.encode(self.feed.log.as_ref()).to_string()),
                });
            }
            Some(None) => return Ok(Phase::Over),
            None => {
                // Everything before these positions that is for this subscriber is in the queue now.
                let positions = self.feed.subscribers.positions().unwrap_or_default();
                while self.has_room_for(1)
                    && let Some(found) = queue.next_ready()
                {
                    self.hear(&found);
                }
                if !self.has_room_for(1) {
                    self.nothing_happened();
                } else if self.ready.is_empty() && !queue.has_lagged() {
                    cursor::advance_shared(&mut self.place.seen, &positions);
                    self.nothing_happened();
                }
            }
        }
        Ok(Phase::Live(queue))
    }

    fn hear(&mut self, found: &Arc<Seen>) {
        let is_news = self.place.is_news(found.position);
        cursor::advance_shared(&mut self.place.seen, &found.positions);
        let made = found.event.changed_at.as_datetime();
        let is_past = self.since.is_some_and(|since| made < since);
        if !is_news || is_past {
            return;
        }
        let is_plain = found.event.sealed.is_none()
            && !found.is_early
            && found.lookup.is_none()
            && self.held_back.len() == 0
            && !self.place.held.contains(&found.position);
        if is_plain {
            if self.interest.wants(&found.event) && self.is_new(&found.event) {
                self.push(What::Heard(Arc::clone(found)));
            }
        } else {
            let told = Told {
                position: found.position,
                event: found.event.clone(),
                published_at: found.published_at,
                lookup: found.lookup.clone(),
                heard: Some(Arc::clone(found)),
            };
            self.take_or_hold(told, found.is_early);
        }
    }

    /// Whether this many more changes may be held back. The bound applies only while answers of the trail are awaited.
    fn has_room_for(&self, more: usize) -> bool {
        self.held_back.len() + more <= HELD_AT_MOST || !self.held_back.has_undecided()
    }

    /// Waits until a held back change may be sent. If there is none, it waits forever.
    async fn held_back_may_be_told(&self) {
        let clock = self.feed.shutdown.clock();
        if !self.held_back.has_undecided() {
            return until(clock, self.held_back.look()).await;
        }
        tokio::select! {
            biased;
            () = self.feed.audit_lookup.decided() => {}
            () = until(clock, self.held_back.look()) => {}
        }
    }
}

async fn until(clock: &Clock, moment: Option<Instant>) {
    match moment {
        Some(moment) => clock.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
