//! The subscribers of a feed, and the position of the feed. Both change under one lock, so that a new subscriber knows
//! the exact position from which it gets everything.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::Gauge;
use tandem_event_path::log::Offsets;
use tandem_model::message::Position;
use tandem_runtime::{clock::Clock, notified, shutdown::Shutdown};
use tokio::sync::{Notify, watch};

use super::inbox::{Bell, Inbox};

/// How many messages of each partition a feed reads again at its beginning, if somebody joined before it could see the
/// log.
const STEP_BACK: i64 = 10_000;

/// What a subscription listens to.
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
    inbox: Arc<Inbox<T>>,
}

struct Inner<T> {
    /// The positions of the feed, or `None` until it has begun. Listeners share the positions from when they joined or
    /// last heard something.
    positions: Option<Arc<Offsets>>,
    /// The positions where the feed began.
    began: Option<Arc<Offsets>>,
    channels: HashMap<Channel, Vec<Member<T>>>,
    next_id: u64,
    closed: bool,
}

/// The listeners of a feed. Clones share them. A clone is one pointer, because each of ten thousand subscriptions has
/// one.
pub(super) struct Subscribers<T>(Arc<Shared<T>>);

struct Shared<T> {
    inner: Mutex<Inner<T>>,
    bell: Bell<T>,
    /// Tasks that wait for the beginning are woken in the order in which they came.
    begun: Notify,
    /// The number of subscriptions.
    count: watch::Sender<usize>,
    listeners: Gauge,
    /// The number of messages of each partition that the feed reads again in any case.
    look_back: i64,
}

impl<T> Clone for Subscribers<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A listener's end of its queue. Dropping it leaves the feed.
pub(super) struct Subscription<T> {
    subscribers: Subscribers<T>,
    channel: Channel,
    id: u64,
    inbox: Arc<Inbox<T>>,
}

impl<T: Clone> Subscribers<T> {
    /// No listeners yet. `listeners` is the gauge that counts them.
    pub(super) fn new(listeners: Gauge) -> Self {
        Self::looking_back(listeners, 0)
    }

    /// The same for a feed that begins this many messages before the end of each partition.
    pub(super) fn looking_back(listeners: Gauge, messages: i64) -> Self {
        Self(Arc::new(Shared {
            inner: Mutex::new(Inner {
                positions: None,
                began: None,
                channels: HashMap::new(),
                next_id: 0,
                closed: false,
            }),
            bell: Bell::new(),
            begun: Notify::new(),
            count: watch::channel(0).0,
            listeners,
            look_back: messages,
        }))
    }

    /// Begins the feed at the end of the log, or earlier by what it looks back. If somebody joined before the feed
    /// could see the log, it begins even earlier, so that messages appended since then are heard. Returns where it
    /// begins. A repeated call returns the same.
    pub(super) fn begin(&self, ends: &BTreeMap<i32, (i64, i64)>) -> Arc<Offsets> {
        let mut inner = self.lock();
        let step_back = if inner.channels.is_empty() {
            self.0.look_back
        } else {
            STEP_BACK
        };
        let from = |(partition, (first, next)): (&i32, &(i64, i64))| {
            (*partition, (*next - step_back).max(*first))
        };
        let positions = inner
            .positions
            .get_or_insert_with(|| Arc::new(ends.iter().map(from).collect()))
            .clone();
        inner.began.get_or_insert_with(|| positions.clone());
        drop(inner);
        self.0.begun.notify_waiters();
        positions
    }

    /// Waits until the feed has begun.
    pub(super) async fn begun(&self) {
        notified::until(&self.0.begun, || self.lock().began.is_some()).await;
    }

    /// The positions where the feed began, if it has.
    pub(super) fn began(&self) -> Option<Arc<Offsets>> {
        self.lock().began.clone()
    }

    /// Waits until somebody listens.
    pub(super) async fn occupied(&self) {
        let _ = self.0.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Waits until there have been no listeners for this time.
    pub(super) async fn deserted(&self, time: Duration, clock: &Clock) {
        let mut count = self.0.count.subscribe();
        loop {
            let _ = count.wait_for(|count| *count == 0).await;
            tokio::select! {
                biased;
                _ = count.wait_for(|count| *count > 0) => {}
                () = clock.sleep(time) => return,
            }
        }
    }

    /// The positions of the feed, if it has begun.
    pub(super) fn positions(&self) -> Option<Arc<Offsets>> {
        self.lock().positions.clone()
    }

    /// Joins the feed, and returns the positions from which the listener hears everything. The subscription is boxed,
    /// because it moves from step to step, and a future holds space for each place it moves through.
    pub(super) fn join(&self, channel: Channel) -> (Box<Subscription<T>>, Option<Arc<Offsets>>) {
        let inbox = Arc::new(Inbox::new());
        let mut inner = self.lock();
        let id = inner.next_id;
        inner.next_id += 1;
        if inner.closed {
            inbox.end();
        } else {
            let members = inner.channels.entry(channel.clone()).or_default();
            members.push(Member {
                id,
                inbox: Arc::clone(&inbox),
            });
        }
        self.0.count.send_modify(|count| *count += 1);
        self.0.listeners.increment(1.0);
        let subscription = Box::new(Subscription {
            subscribers: self.clone(),
            channel,
            id,
            inbox,
        });
        (subscription, inner.positions.clone())
    }

    /// Moves past a message that is for nobody.
    pub(super) fn pass(&self, position: Position) {
        let mut inner = self.lock();
        inner.step(position);
    }

    /// Moves past a message if nobody listens to any of these channels. Returns whether it did.
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

    /// Delivers to all listeners of these channels what `make` builds from the new positions. A listener whose queue is
    /// full loses its subscription: it gets what is in the queue, and then the information that it lagged.
    pub(super) fn deliver(
        &self,
        channels: &[Channel],
        position: Position,
        make: impl FnOnce(Arc<Offsets>) -> T,
    ) {
        let mut inner = self.lock();
        inner.step(position);
        let members = |channel: &Channel| inner.channels.get(channel).map_or(0, Vec::len);
        let listeners: usize = channels.iter().map(members).sum();
        if listeners == 0 {
            return;
        }
        let update = make(inner.positions.clone().unwrap_or_default());
        let mut told = Vec::with_capacity(listeners);
        for channel in channels {
            let Some(members) = inner.channels.get_mut(channel) else {
                continue;
            };
            members.retain(|member| {
                let has_room = member.inbox.put(update.clone());
                if !has_room {
                    metrics::counter!("live_subscribers_lagged_total").increment(1);
                }
                told.push(Arc::clone(&member.inbox));
                has_room
            });
            if members.is_empty() {
                inner.channels.remove(channel);
            }
        }
        drop(inner);
        self.0.bell.ring(told);
    }

    /// Ends the feed. Each listener still gets what is in its queue.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for member in std::mem::take(&mut inner.channels).values().flatten() {
            member.inbox.end();
        }
    }
}

impl<T: Send + Sync + 'static> Subscribers<T> {
    /// Starts the task that wakes many listeners in batches, until the service stops.
    pub(super) fn start(&self, shutdown: &Shutdown) {
        self.0.bell.start(shutdown);
    }
}

impl<T> Subscribers<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn step(&mut self, position: Position) {
        let positions = Arc::make_mut(self.positions.get_or_insert_default());
        let next = positions.entry(position.partition).or_insert(0);
        *next = (*next).max(position.offset + 1);
    }
}

impl<T> Subscription<T> {
    /// The next update. `None` when the feed has ended or this listener lagged.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.inbox.next().await
    }

    /// The next update, if there is one already.
    pub(super) fn next_ready(&mut self) -> Option<T> {
        self.inbox.next_ready()
    }

    /// Whether updates were lost because the queue was full.
    pub(super) fn has_lagged(&self) -> bool {
        self.inbox.has_lagged()
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.subscribers.0.listeners.decrement(1.0);
        self.subscribers.0.count.send_modify(|count| *count -= 1);
        let mut inner = self.subscribers.lock();
        if let Some(members) = inner.channels.get_mut(&self.channel) {
            members.retain(|member| member.id != self.id);
            if members.is_empty() {
                inner.channels.remove(&self.channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_feed_is_deserted_when_nobody_has_listened_for_the_whole_time() {
        let [quiet, visit, time] = [6, 1, 10].map(Duration::from_secs);
        let subscribers = Subscribers::<()>::new(metrics::gauge!("test"));
        let clock = tandem_runtime::clock::Clock::default();
        let begun = Instant::now();
        let visits = async {
            for _ in 0..5 {
                sleep(quiet).await;
                let _seat = subscribers.join(Channel::All);
                sleep(visit).await;
            }
            Instant::now()
        };
        let (last_left, ()) = tokio::join!(visits, subscribers.deserted(time, &clock));
        assert_eq!(last_left.elapsed().as_secs(), time.as_secs());
        assert_eq!(begun.elapsed().as_secs(), 45);
    }
}
