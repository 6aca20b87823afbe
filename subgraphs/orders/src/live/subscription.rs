//! One subscription to the changes of orders: the orders that there are, if it wants them, what it missed, and what happens.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tandem_event_path::log::Offsets;
use tandem_model::message::Position;
use tandem_runtime::clock::{Clock, Instant};

use super::{
    Interest, LiveError,
    cursor::{self, Place},
    deduplication::{Occurrence, SeenRevisions},
    delivery::Delivery,
    heartbeat::Beat,
    held_back::{HELD_AT_MOST, HeldBack, Released, Told},
    item::{Chain, Heartbeat, OrderItem, OrderSnapshot, OrderUpdate, published_at},
    log::{Attention::Prompt, FIRST_PAUSE, LONGEST_PAUSE, LogAway, LogReader, next_message},
    orders::{FEED, OrderFeed, Seen, read},
    snapshot::Page,
    subscribers::Subscription,
    verdicts::Case,
};
use crate::domain::OrderChangeEvent;

/// Messages that are caught up with at once.
const CATCH_UP: usize = 500;
/// How long catching up waits for one more message before it works on those that it has.
const GATHER: Duration = Duration::from_millis(5);
/// How long catching up waits for the audit trail before it goes on and holds back what the trail has not judged.
const AUDIT_WAIT: Duration = Duration::from_secs(1);

pub(super) enum Phase {
    /// A snapshot is to be read; nothing was done for it.
    Begin,
    /// Reads a snapshot, and keeps what happens meanwhile in a queue, if there is one.
    Snapshot(Option<Subscription<Arc<Seen>>>),
    /// Goes on behind a position; the log was not looked at yet.
    Resume,
    /// Reads the log behind that position.
    CatchUp(Box<CatchUp>),
    /// Listens.
    Live(Subscription<Arc<Seen>>),
    /// Nothing more comes.
    Over,
}

pub(super) struct CatchUp {
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

/// What is to be given next, and where the subscriber is behind it.
struct Ready {
    cursor: String,
    what: What,
}

enum What {
    Page(Page),
    Change(
        Box<OrderChangeEvent>,
        Option<DateTime<Utc>>,
        Option<Arc<Delivery>>,
    ),
    /// A change that all its listeners were told of at once.
    Heard(Arc<Seen>),
    Nothing,
}

pub(super) struct OrderSubscription {
    feed: OrderFeed,
    interest: Interest,
    /// Only changes made later, for one who joined before the feed saw the log and looks back at what was there.
    pub(super) since: Option<DateTime<Utc>>,
    place: Place,
    /// What was read of that which `place` says is held back; the rest is to be read again.
    held_back: HeldBack,
    chain: Chain,
    beat: Beat,
    phase: Phase,
    ready: VecDeque<Ready>,
}

impl OrderSubscription {
    pub(super) fn new(
        feed: OrderFeed,
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
            ready: VecDeque::new(),
        }
    }

    /// The next item; `None` when the service stops.
    pub(super) async fn next(&mut self) -> Option<Result<OrderItem, LiveError>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(Ok(self.give(ready)));
            }
            if self.release().await {
                continue;
            }
            // What happens once, and at the beginning, takes no room for as long as the subscription listens.
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
            self.chain = Chain::from(Some(Place::at(began).encode()));
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

    fn push(&mut self, what: What) {
        let cursor = self.place.encode();
        self.ready.push_back(Ready { cursor, what });
    }

    /// Nothing happened for a while. While the feed has not seen the log there is nothing to go on from, and silence says more.
    fn nothing_happened(&mut self) {
        if self.place.seen.is_empty() {
            self.beat.sent(self.feed.shutdown.clock());
        } else {
            self.push(What::Nothing);
        }
    }

    /// Takes a change that may be told, or holds it back: while the audit trail has not said whether it was in the log before, while it
    /// does not open, while the change before it has not been read, and behind another one of its order that is held back.
    fn take_or_hold(&mut self, mut told: Told, mut is_early: bool) {
        if !self.interest.wants(&told.event) {
            return;
        }
        if let Some(verdict) = told.case.as_ref().and_then(|case| case.verdict()) {
            if !verdict.is_first {
                self.place.held.remove(&told.position);
                return;
            }
            told.case = None;
            is_early = verdict.predecessor.is_some_and(|it| self.place.is_news(it));
        }
        let Told {
            position,
            event,
            case,
            ..
        } = &told;
        let is_open = case.is_none() && event.sealed.is_none();
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

    /// Takes what need not be held back any more. Returns whether there was any.
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

    /// Takes a change that is open, unless it is known by the snapshot.
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

    /// Whether a change is not known by the snapshot.
    fn is_new(&mut self, event: &OrderChangeEvent) -> bool {
        let Some(known) = self.place.ahead.get(&event.id).copied() else {
            return true;
        };
        if event.revision >= known {
            self.place.ahead.remove(&event.id);
        }
        event.revision > known
    }

    /// Joins, and notes from where on everything will be heard: what is published before that is in the store.
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
            ..Place::default()
        };
        if !self.chain.has_begun() {
            self.chain = Chain::from(Some(Place::at(self.place.seen.clone()).encode()));
        }
        Ok(Phase::Snapshot(Some(queue)))
    }

    /// Gives one page.
    async fn snapshot(
        &mut self,
        queue: Option<Subscription<Arc<Seen>>>,
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

    /// Reads a page, however long the store is away.
    async fn read_page(&self, behind: &str) -> Page {
        let clock = self.feed.shutdown.clock();
        let mut pause = FIRST_PAUSE;
        loop {
            let read = self
                .feed
                .snapshots
                .page(&self.interest, behind, &self.place.seen);
            match read.await {
                Ok(page) => return page,
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a snapshot waits for the store");
                }
            }
            clock.sleep(clock.jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn listen(&mut self, mut queue: Subscription<Arc<Seen>>) -> Result<Phase, LiveError> {
        let clock = self.feed.shutdown.clock().clone();
        // What waits in the queue meanwhile is bounded: whoever has too much there is told where to resume.
        let has_room = self.has_room_for(1);
        let next = async {
            if !has_room {
                std::future::pending::<()>().await;
            }
            queue.next().await
        };
        let heard = tokio::select! {
            biased;
            heard = self.beat.before_due(&clock, next) => heard,
            () = self.held_back_may_be_told() => return Ok(Phase::Live(queue)),
        };
        match heard {
            Some(Some(found)) => self.hear(&found),
            Some(None) if queue.has_lagged() => {
                return Err(LiveError::Lagged {
                    cursor: Some(self.place.encode()),
                });
            }
            Some(None) => return Ok(Phase::Over),
            None => {
                // Whatever is for this subscriber and before these positions is in the queue now.
                let positions = self.feed.subscribers.positions().unwrap_or_default();
                while self.has_room_for(1)
                    && let Some(found) = queue.next_ready()
                {
                    self.hear(&found);
                }
                if !self.has_room_for(1) {
                    self.nothing_happened();
                } else if self.ready.is_empty() && !queue.has_lagged() {
                    cursor::advance(&mut self.place.seen, &positions);
                    self.nothing_happened();
                }
            }
        }
        Ok(Phase::Live(queue))
    }

    fn hear(&mut self, found: &Arc<Seen>) {
        let is_news = self.place.is_news(found.position);
        cursor::advance(&mut self.place.seen, &found.positions);
        let made = found.event.changed_at.as_datetime();
        let is_past = self.since.is_some_and(|since| made < since);
        if !is_news || is_past {
            return;
        }
        let is_plain = found.event.sealed.is_none()
            && !found.is_early
            && found.case.is_none()
            && self.held_back.len() == 0
            && !self.place.held.contains(&found.position);
        if is_plain {
            // The usual way copies nothing.
            if self.interest.wants(&found.event) && self.is_new(&found.event) {
                self.push(What::Heard(Arc::clone(found)));
            }
        } else {
            let told = Told {
                position: found.position,
                event: found.event.clone(),
                published_at: found.published_at,
                case: found.case.clone(),
                heard: Some(Arc::clone(found)),
            };
            self.take_or_hold(told, found.is_early);
        }
    }

    /// Looks at the log until it answers, and goes on behind the cursor.
    async fn resume(&mut self) -> Result<Phase, LiveError> {
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
    async fn catch_up(&mut self, mut catch_up: Box<CatchUp>) -> Result<Phase, LiveError> {
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

    /// Whether so many more changes may be held back. Only what the audit trail will judge is waited for.
    fn has_room_for(&self, more: usize) -> bool {
        self.held_back.len() + more <= HELD_AT_MOST || !self.held_back.has_undecided()
    }

    /// Waits until something that is held back may be told; for ever while nothing is.
    async fn held_back_may_be_told(&self) {
        let clock = self.feed.shutdown.clock();
        if !self.held_back.has_undecided() {
            return until(clock, self.held_back.look()).await;
        }
        let mut decided = self.feed.verdicts.decided();
        tokio::select! {
            biased;
            _ = decided.changed() => {}
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
