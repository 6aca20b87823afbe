//! Who listens to a feed, and how far the feed has come: both change under one lock, so that whoever joins knows exactly
//! from which position on it will hear everything.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::Gauge;
use tandem_kit::kafka::{message::Position, tail::Offsets};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

/// Updates that may wait for one subscriber.
pub(super) const QUEUE: usize = 1_024;

/// Messages of each partition that a feed looks back at when it could not see the log for a while.
const STEP_BACK: i64 = 10_000;

/// What a subscriber listens to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// Everything.
    All,
    /// One order.
    Order(String),
    /// One customer.
    Customer(String),
}

struct Member<T> {
    id: u64,
    queue: mpsc::Sender<T>,
    lagged: Arc<AtomicBool>,
}

struct Inner<T> {
    /// `None` until the feed has begun.
    positions: Option<Offsets>,
    channels: HashMap<Channel, Vec<Member<T>>>,
    next_id: u64,
    closed: bool,
}

/// The listeners of a feed. Clones share them.
pub(super) struct Audience<T> {
    inner: Arc<Mutex<Inner<T>>>,
    begun: watch::Sender<bool>,
    /// How many have a seat.
    seats: watch::Sender<usize>,
    listeners: Gauge,
}

impl<T> Clone for Audience<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            begun: self.begun.clone(),
            seats: self.seats.clone(),
            listeners: self.listeners.clone(),
        }
    }
}

/// A listener's end of its queue; leaves when dropped.
pub(super) struct Seat<T> {
    audience: Audience<T>,
    channel: Channel,
    id: u64,
    queue: mpsc::Receiver<T>,
    lagged: Arc<AtomicBool>,
}

impl<T: Clone> Audience<T> {
    /// Nobody yet. `listeners` counts them.
    pub(super) fn new(listeners: Gauge) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                positions: None,
                channels: HashMap::new(),
                next_id: 0,
                closed: false,
            })),
            begun: watch::channel(false).0,
            seats: watch::channel(0).0,
            listeners,
        }
    }

    /// The feed begins at the log's end. If somebody joined before it could see the log, it begins earlier, so that what
    /// was appended since is heard. Returns where it begins; again the same when asked again.
    pub(super) fn begin(&self, ends: &BTreeMap<i32, (i64, i64)>) -> Offsets {
        let mut inner = self.lock();
        let step_back = if inner.channels.is_empty() {
            0
        } else {
            STEP_BACK
        };
        let from = |(partition, (first, next)): (&i32, &(i64, i64))| {
            (*partition, (*next - step_back).max(*first))
        };
        let positions = inner
            .positions
            .get_or_insert_with(|| ends.iter().map(from).collect())
            .clone();
        drop(inner);
        self.begun.send_replace(true);
        positions
    }

    /// Waits until the feed has begun.
    pub(super) async fn begun(&self) {
        // Fails only when the sender is gone, and this holds it.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Waits until somebody listens.
    pub(super) async fn occupied(&self) {
        let _ = self.seats.subscribe().wait_for(|seats| *seats > 0).await;
    }

    /// Waits until nobody has listened for so long.
    pub(super) async fn deserted(&self, time: Duration) {
        let mut seats = self.seats.subscribe();
        loop {
            let _ = seats.wait_for(|seats| *seats == 0).await;
            tokio::select! {
                () = sleep(time) => return,
                _ = seats.wait_for(|seats| *seats > 0) => {}
            }
        }
    }

    /// How far the feed has come, if it has begun.
    pub(super) fn positions(&self) -> Option<Offsets> {
        self.lock().positions.clone()
    }

    /// Joins, and tells from which positions on everything will be heard.
    pub(super) fn join(&self, channel: Channel) -> (Seat<T>, Option<Offsets>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let lagged = Arc::new(AtomicBool::new(false));
        let mut inner = self.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        if !inner.closed {
            inner
                .channels
                .entry(channel.clone())
                .or_default()
                .push(Member {
                    id,
                    queue: sender,
                    lagged: Arc::clone(&lagged),
                });
        }
        self.seats.send_modify(|seats| *seats += 1);
        self.listeners.increment(1.0);
        let seat = Seat {
            audience: self.clone(),
            channel,
            id,
            queue,
            lagged,
        };
        (seat, inner.positions.clone())
    }

    /// Passes by a message that is for nobody.
    pub(super) fn pass(&self, position: Position) {
        let mut inner = self.lock();
        inner.step(position);
    }

    /// Passes by a message if nobody listens to any of these channels. Returns whether that was so.
    pub(super) fn pass_unless_heard(&self, channels: &[Channel], position: Position) -> bool {
        let mut inner = self.lock();
        let heard = channels
            .iter()
            .any(|channel| inner.channels.contains_key(channel));
        if !heard {
            inner.step(position);
        }
        !heard
    }

    /// Gives what `make` makes of the new positions to all who listen to one of these channels. One whose queue is full
    /// loses its seat: it hears what is in the queue, then that it lagged.
    pub(super) fn deliver(
        &self,
        channels: &[Channel],
        position: Position,
        make: impl FnOnce(&Offsets) -> T,
    ) {
        let mut inner = self.lock();
        inner.step(position);
        if !channels
            .iter()
            .any(|channel| inner.channels.contains_key(channel))
        {
            return;
        }
        let update = make(inner.positions.as_ref().unwrap_or(&Offsets::new()));
        for channel in channels {
            let Some(members) = inner.channels.get_mut(channel) else {
                continue;
            };
            members.retain(|member| match member.queue.try_send(update.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    member.lagged.store(true, Ordering::Release);
                    metrics::counter!("live_subscribers_lagged_total").increment(1);
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            });
            if members.is_empty() {
                inner.channels.remove(channel);
            }
        }
    }

    /// Ends: every listener hears what is in its queue, and no more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.channels.clear();
    }
}

impl<T> Audience<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn step(&mut self, position: Position) {
        let positions = self.positions.get_or_insert_default();
        let next = positions.entry(position.partition).or_insert(0);
        *next = (*next).max(position.offset + 1);
    }
}

impl<T> Seat<T> {
    /// The next update; `None` when the feed ended or this listener lagged.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.queue.recv().await
    }

    /// Whether updates were lost because the queue was full.
    pub(super) fn has_lagged(&self) -> bool {
        self.lagged.load(Ordering::Acquire)
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.audience.listeners.decrement(1.0);
        self.audience.seats.send_modify(|seats| *seats -= 1);
        let mut inner = self.audience.lock();
        if let Some(members) = inner.channels.get_mut(&self.channel) {
            members.retain(|member| member.id != self.id);
            if members.is_empty() {
                inner.channels.remove(&self.channel);
            }
        }
    }
}
