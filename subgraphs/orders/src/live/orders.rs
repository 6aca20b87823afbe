//! The feed of orders' changes: each change once, in order per order, resumable.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use tandem_kit::{
    data_keys::Opener,
    kafka::{
        cloudevents,
        message::{Message, Position},
        tail::Offsets,
    },
    shutdown::Shutdown,
    store::ChangeLog,
};
use tokio::time::timeout;

use super::{
    LiveError,
    audience::{Audience, Channel, Seat},
    cursor,
    log::{
        Attention::Prompt, FIRST_PAUSE, LONGEST_PAUSE, Log, LogAway, LogReader, begin, next_message,
    },
    sightings::{CLOCK_SKEW, Memory, Sightings, Verdict},
};
use crate::{
    domain::{ChangeType, Order, OrderChangeEvent},
    erasure,
};

const FEED: &str = "orders";
/// Messages that are caught up with at once.
const CATCH_UP: usize = 500;
/// How long catching up waits for one more message before it works on those that it has.
const GATHER: Duration = Duration::from_millis(5);

/// Which orders a subscriber wants to hear of; of all if neither is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Only this customer's.
    pub customer_id: Option<String>,
    /// Only this one.
    pub order_id: Option<String>,
}

impl Interest {
    fn channel(&self) -> Channel {
        match (&self.order_id, &self.customer_id) {
            (Some(id), _) => Channel::Order(id.clone()),
            (None, Some(id)) => Channel::Customer(id.clone()),
            (None, None) => Channel::All,
        }
    }

    fn wants(&self, event: &OrderChangeEvent) -> bool {
        let is =
            |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|wanted| wanted == id);
        is(&self.order_id, &event.id) && is(&self.customer_id, &event.customer_id)
    }
}

/// One change of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderUpdate {
    /// To resume behind this update.
    pub cursor: String,
    /// What happened.
    pub change_type: ChangeType,
    /// The order as it was after this change.
    pub order: Arc<Order>,
}

/// A first sighting, as the feed hands it to its listeners.
struct Sighted {
    position: Position,
    /// How far the feed had come with it.
    positions: Offsets,
    event: OrderChangeEvent,
}

/// The feed of orders' changes. Clones share it.
#[derive(Clone)]
pub struct OrderFeed {
    log: Arc<dyn Log>,
    audience: Audience<Arc<Sighted>>,
    sightings: Sightings,
    opener: Opener,
    shutdown: Shutdown,
}

fn read(message: &Message) -> Option<OrderChangeEvent> {
    // What cannot be read is the audit projection's to set aside.
    let event = cloudevents::read(message).ok()?;
    OrderChangeEvent::read(&event).ok()
}

impl OrderFeed {
    /// Starts to read the log at its end; `changes` is the audit trail that is made from the same log.
    #[must_use]
    pub fn start(
        log: Arc<dyn Log>,
        changes: Arc<dyn ChangeLog>,
        opener: Opener,
        shutdown: &Shutdown,
    ) -> Self {
        let feed = Self {
            log,
            audience: Audience::new(
                metrics::gauge!("live_subscribers", "subscription" => "orderUpdated"),
            ),
            sightings: Sightings::new(changes, shutdown.clone()),
            opener,
            shutdown: shutdown.clone(),
        };
        shutdown.spawn(feed.clone().run());
        feed
    }

    /// Waits until the feed reads the log: whoever subscribes then hears of all that is appended from then on.
    pub async fn begun(&self) {
        self.audience.begun().await;
    }

    async fn run(self) {
        let started = Utc::now() - CLOCK_SKEW;
        let begun = begin(self.log.as_ref(), &self.audience, FEED, &self.shutdown).await;
        if let Some((mut reader, ends)) = begun {
            let mut memory = Memory::from_now();
            let seen = || self.audience.positions().unwrap_or_default();
            while let Some(message) = next_message(
                self.log.as_ref(),
                &mut reader,
                Prompt,
                seen,
                FEED,
                &self.shutdown,
            )
            .await
            {
                let Position { partition, offset } = message.position;
                let was_there = ends.get(&partition).is_some_and(|next| offset < *next);
                let event = read(&message)
                    .filter(|event| !was_there || event.changed_at.as_datetime() >= started);
                match event {
                    Some(event) => self.take(event, message.position, &mut memory).await,
                    None => self.audience.pass(message.position),
                }
            }
        }
        self.audience.close();
    }

    async fn take(&self, event: OrderChangeEvent, position: Position, memory: &mut Memory) {
        let channels = [
            Channel::All,
            Channel::Order(event.id.clone()),
            Channel::Customer(event.customer_id.clone()),
        ];
        let is_new = match memory.judge(&event) {
            Verdict::New => true,
            Verdict::Repeated => false,
            Verdict::Unknown => {
                if self.audience.pass_unless_heard(&channels, position) {
                    return;
                }
                self.sightings.are_first(&[(&event, position)]).await == [true]
            }
        };
        if !is_new {
            self.audience.pass(position);
            return;
        }
        memory.sighted(&event);
        let Some(event) = self.open(event).await else {
            self.audience.pass(position);
            return;
        };
        self.audience.deliver(&channels, position, |positions| {
            Arc::new(Sighted {
                position,
                positions: positions.clone(),
                event,
            })
        });
    }

    /// Opens an event, however long its key cannot be told. `None` when it does not open, or the service stops.
    async fn open(&self, event: OrderChangeEvent) -> Option<OrderChangeEvent> {
        if event.sealed.is_none() {
            return Some(event);
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match erasure::open(&self.opener, vec![event.clone()]).await {
                Ok(mut opened) => return opened.pop().flatten(),
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "live updates wait for data keys");
                }
            }
            if !self.shutdown.sleep(pause).await {
                return None;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Every change from now on, or behind the cursor `after`. The stream ends when the service stops.
    ///
    /// # Errors
    /// [`LiveError::BadCursor`] for a cursor that cannot be read; one that does not fit the log is the stream's first item.
    pub fn subscribe(
        &self,
        interest: Interest,
        after: Option<&str>,
    ) -> Result<impl Stream<Item = Result<OrderUpdate, LiveError>> + Send + use<>, LiveError> {
        let mut since = None;
        let (phase, seen) = match after {
            Some(after) => (Phase::Resume, cursor::decode(after)?),
            None => {
                let (seat, positions) = self.audience.join(interest.channel());
                if positions.is_none() {
                    since = Some(Utc::now() - CLOCK_SKEW);
                }
                (Phase::Live(seat), positions.unwrap_or_default())
            }
        };
        let subscriber = Subscriber {
            feed: self.clone(),
            interest,
            since,
            seen,
            ready: VecDeque::new(),
            phase,
        };
        Ok(stream::unfold(subscriber, |mut subscriber| async move {
            let next = subscriber.next().await?;
            Some((next, subscriber))
        }))
    }
}

enum Phase {
    /// A cursor was given; the log was not looked at yet.
    Resume,
    /// Reads the log behind the cursor.
    CatchUp(Box<CatchUp>),
    /// Listens.
    Live(Seat<Arc<Sighted>>),
    /// Nothing more comes.
    Over,
}

struct CatchUp {
    reader: Box<dyn LogReader>,
    memory: Memory,
    /// Where to read to.
    target: Offsets,
    /// The seat, once the target is where listening begins. Taken late, so that its queue holds little meanwhile.
    seat: Option<Seat<Arc<Sighted>>>,
}

struct Subscriber {
    feed: OrderFeed,
    interest: Interest,
    /// Only changes made later, for one who joined before the feed saw the log and looks back at what was there.
    since: Option<DateTime<Utc>>,
    /// For each partition the next offset that was not seen.
    seen: Offsets,
    ready: VecDeque<OrderUpdate>,
    phase: Phase,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Result<OrderUpdate, LiveError>> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Some(Ok(update));
            }
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Resume => match self.resume().await {
                    Ok(phase) => self.phase = phase,
                    Err(error) => return Some(Err(error)),
                },
                Phase::CatchUp(catch_up) => self.phase = self.catch_up(catch_up).await,
                Phase::Live(mut seat) => match seat.next().await {
                    Some(sighted) => {
                        self.phase = Phase::Live(seat);
                        self.hear(&sighted);
                    }
                    None if seat.has_lagged() => {
                        let cursor = Some(cursor::encode(&self.seen));
                        return Some(Err(LiveError::Lagged { cursor }));
                    }
                    None => return None,
                },
            }
        }
    }

    fn hear(&mut self, sighted: &Sighted) {
        let Position { partition, offset } = sighted.position;
        let is_seen = self.seen.get(&partition).is_some_and(|next| offset < *next);
        cursor::advance(&mut self.seen, &sighted.positions);
        let made = sighted.event.changed_at.as_datetime();
        let is_past = self.since.is_some_and(|since| made < since);
        if !is_seen && !is_past {
            self.push(sighted.event.clone());
        }
    }

    fn push(&mut self, event: OrderChangeEvent) {
        if self.interest.wants(&event) {
            self.ready.push_back(OrderUpdate {
                cursor: cursor::encode(&self.seen),
                change_type: event.change_type,
                order: Arc::new(event.into_order()),
            });
        }
    }

    /// Looks at the log until it answers, and opens a reader behind the cursor.
    async fn resume(&mut self) -> Result<Phase, LiveError> {
        let shutdown = self.feed.shutdown.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let opened = tokio::select! {
                () = shutdown.requested() => return Ok(Phase::Over),
                opened = self.try_resume() => opened?,
            };
            match opened {
                Ok(phase) => return Ok(phase),
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a subscriber waits for the log");
                }
            }
            if !shutdown.sleep(pause).await {
                return Ok(Phase::Over);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_resume(&mut self) -> Result<Result<Phase, LogAway>, LiveError> {
        self.feed.audience.begun().await;
        let target = self.feed.audience.positions().unwrap_or_default();
        let ends = match self.feed.log.ends().await {
            Ok(ends) => ends,
            Err(error) => return Ok(Err(error)),
        };
        let from = cursor::starting_points(&self.seen, &ends)?;
        Ok(self.feed.log.open(&from, Prompt).await.map(|reader| {
            self.seen = from;
            Phase::CatchUp(Box::new(CatchUp {
                reader,
                memory: Memory::of_the_past(),
                target,
                seat: None,
            }))
        }))
    }

    /// Goes a step towards the target. When it is reached, takes a seat, which sets the last target; when that is reached,
    /// listens. What was read beyond it is heard again there and known by its offset.
    async fn catch_up(&mut self, mut catch_up: Box<CatchUp>) -> Phase {
        if cursor::has_reached(&self.seen, &catch_up.target) {
            if let Some(seat) = catch_up.seat {
                return Phase::Live(seat);
            }
            let (seat, positions) = self.feed.audience.join(self.interest.channel());
            catch_up.seat = Some(seat);
            catch_up.target = positions.unwrap_or_default();
            return Phase::CatchUp(catch_up);
        }
        let CatchUp { reader, memory, .. } = catch_up.as_mut();
        let (log, seen) = (self.feed.log.as_ref(), || self.seen.clone());
        let Some(first) = next_message(log, reader, Prompt, seen, FEED, &self.feed.shutdown).await
        else {
            return Phase::Over;
        };
        let mut messages = vec![first];
        while messages.len() < CATCH_UP
            && let Ok(Ok(message)) = timeout(GATHER, reader.next()).await
        {
            messages.push(message);
        }
        let read: Vec<(Position, Option<OrderChangeEvent>)> = messages
            .iter()
            .map(|message| {
                let event = read(message).filter(|event| self.interest.wants(event));
                (message.position, event)
            })
            .collect();
        let first_sightings = self.judge(&read, memory).await;
        for ((position, event), is_first) in read.into_iter().zip(first_sightings) {
            let next = self.seen.entry(position.partition).or_insert(0);
            if position.offset < *next {
                continue;
            }
            *next = position.offset + 1;
            if let Some(event) = event.filter(|_| is_first)
                && let Some(event) = self.feed.open(event).await
            {
                self.push(event);
            }
        }
        Phase::CatchUp(catch_up)
    }

    /// For each message whether it is a first sighting of what is wanted. What memory does not know is asked for at once.
    async fn judge(
        &self,
        read: &[(Position, Option<OrderChangeEvent>)],
        memory: &mut Memory,
    ) -> Vec<bool> {
        let unknown: Vec<(usize, (&OrderChangeEvent, Position))> = read
            .iter()
            .enumerate()
            .filter_map(|(index, (position, event))| {
                let event = event.as_ref()?;
                let is_unknown = memory.judge(event) == Verdict::Unknown;
                is_unknown.then_some((index, (event, *position)))
            })
            .collect();
        let asked: Vec<_> = unknown.iter().map(|(_, asked)| *asked).collect();
        let told = self.feed.sightings.are_first(&asked).await;
        let mut told_at = vec![None; read.len()];
        for ((index, _), is_first) in unknown.into_iter().zip(told) {
            told_at[index] = Some(is_first);
        }
        read.iter()
            .zip(told_at)
            .map(|((_, event), told)| {
                let Some(event) = event else { return false };
                // What came before in this very batch may have told more.
                let is_first = match memory.judge(event) {
                    Verdict::New => true,
                    Verdict::Repeated => false,
                    Verdict::Unknown => told.unwrap_or(true),
                };
                if is_first {
                    memory.sighted(event);
                }
                is_first
            })
            .collect()
    }
}
