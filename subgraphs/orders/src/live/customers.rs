//! The feed of customers' changes: each after the replica shows it.
//!
//! While nobody listens, the log is read patiently: reading each change at once would cost the brokers, and the replica's own
//! reader, as much again.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, future, stream};
use tandem_event_path::{data_keys::Opener, log::Offsets, store::StoreError};
use tandem_model::message::Message;
use tandem_runtime::shutdown::Shutdown;

use super::{
    FeedRequest, LiveError,
    cursor::{self, CustomerPlace},
    customer_subscription::{CustomerSubscription, Phase},
    delivery::Delivery,
    item::{CustomerItem, published_at},
    log::{Attention, FIRST_PAUSE, LONGEST_PAUSE, Log, LogReader, begin, next_message, waits},
    recent::Recent,
    subscribers::{Channel, Subscribers},
};
use crate::replica::{Replica, ReplicaCustomer, event, progress::Progress};

pub(super) const FEED: &str = "customers";

/// How long nobody must have listened before the log is read patiently.
const DESERTED: Duration = Duration::from_secs(10);

/// Messages of each partition that are read again at the start: the replica may not show the last of them yet.
const LOOK_BACK: i64 = 2_000;

/// A change, as the feed hands it to its listeners.
pub(super) struct Seen {
    /// How far the feed had come with it.
    pub(super) positions: Offsets,
    pub(super) change: Arc<Change>,
    pub(super) published_at: Option<DateTime<Utc>>,
    pub(super) delivery: Arc<Delivery>,
}

/// A change of a customer.
pub(super) enum Change {
    /// The customer as it was after it.
    Open(Arc<ReplicaCustomer>),
    /// It waits for its data key.
    Sealed(Box<event::CustomerChange>),
}

impl Change {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Open(customer) => &customer.id,
            Self::Sealed(change) => &change.id,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        match self {
            Self::Open(customer) => customer.revision,
            Self::Sealed(change) => change.revision,
        }
    }

    fn changed_at(&self) -> DateTime<Utc> {
        match self {
            Self::Open(customer) => customer.changed_at.as_datetime(),
            Self::Sealed(change) => change.changed_at.as_datetime(),
        }
    }
}

/// The feed of customers' changes. Clones share it.
#[derive(Clone)]
pub struct CustomerFeed {
    pub(super) log: Arc<dyn Log>,
    pub(super) subscribers: Subscribers<Arc<Seen>>,
    pub(super) recent: Recent,
    pub(super) replica: Replica,
    pub(super) progress: Progress,
    opener: Opener,
    pub(super) shutdown: Shutdown,
}

impl CustomerFeed {
    /// Starts to read the log at its end.
    #[must_use]
    pub fn start(
        log: Arc<dyn Log>,
        replica: Replica,
        progress: Progress,
        opener: Opener,
        shutdown: &Shutdown,
    ) -> Self {
        let feed = Self {
            log,
            subscribers: Subscribers::new(
                metrics::gauge!("live_subscribers", "subscription" => "customerUpdated"),
            )
            .looking_back(LOOK_BACK),
            recent: Recent::default(),
            replica,
            progress,
            opener,
            shutdown: shutdown.clone(),
        };
        feed.subscribers.start(shutdown);
        shutdown.spawn(feed.clone().run());
        feed
    }

    /// Waits until the feed reads the log: whoever subscribes then hears of all that is appended from then on.
    pub async fn begun(&self) {
        self.subscribers.begun().await;
    }

    async fn run(self) {
        let log = Arc::clone(&self.log);
        let begun = begin(log.as_ref(), &self.subscribers, FEED, &self.shutdown).await;
        if let Some((mut reader, _)) = begun {
            while self.read_promptly(log.as_ref(), &mut reader).await
                && self.read_patiently(log.as_ref(), &mut reader).await
            {}
        }
        self.subscribers.close();
    }

    /// Reads until nobody has listened for a while. Returns false when the service stops.
    async fn read_promptly(&self, log: &dyn Log, reader: &mut Box<dyn LogReader>) -> bool {
        let deserted = self.subscribers.deserted(DESERTED, self.shutdown.clock());
        self.read_until(deserted, log, reader, Attention::Prompt)
            .await
            && self.turn(log, reader, Attention::Patient).await
    }

    /// Reads until somebody listens. Returns false when the service stops.
    async fn read_patiently(&self, log: &dyn Log, reader: &mut Box<dyn LogReader>) -> bool {
        let occupied = self.subscribers.occupied();
        self.read_until(occupied, log, reader, Attention::Patient)
            .await
            && self.turn(log, reader, Attention::Prompt).await
    }

    async fn read_until(
        &self,
        end: impl Future<Output = ()>,
        log: &dyn Log,
        reader: &mut Box<dyn LogReader>,
        attention: Attention,
    ) -> bool {
        let seen = || self.subscribers.positions().unwrap_or_default();
        tokio::pin!(end);
        loop {
            let message = tokio::select! {
                biased;
                () = &mut end => return true,
                message = next_message(log, reader, attention, seen, FEED, &self.shutdown) => message,
            };
            match message {
                Some(message) => self.take(&message).await,
                None => return false,
            }
        }
    }

    /// Goes on from where it is with another reader. Returns false when the service stops.
    async fn turn(
        &self,
        log: &dyn Log,
        reader: &mut Box<dyn LogReader>,
        attention: Attention,
    ) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let from = self.subscribers.positions().unwrap_or_default();
            match log.open(&from, attention).await {
                Ok(fresh) => {
                    *reader = fresh;
                    return true;
                }
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "live updates wait for the log");
                }
            }
            if !self.shutdown.sleep(pause).await {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn take(&self, message: &Message) {
        self.recent.note(message);
        let channel = [Channel::Customer(message.key.clone().unwrap_or_default())];
        if self
            .subscribers
            .pass_unless_heard(&channel, message.position)
        {
            return;
        }
        // What cannot be read the replica's projection sets aside.
        let opened = match event::read(message) {
            Ok(change) => self.open(change).await,
            Err(_) => None,
        };
        match opened {
            Some(change) => {
                let made = change.changed_at();
                let clock = self.shutdown.clock();
                let delivery = Delivery::of(message, "customerUpdated", made, clock);
                let delivery = Arc::new(delivery);
                self.subscribers
                    .deliver(&channel, message.position, |positions| {
                        Arc::new(Seen {
                            positions: positions.clone(),
                            change: Arc::new(change),
                            published_at: published_at(message),
                            delivery,
                        })
                    });
            }
            None => self.subscribers.pass(message.position),
        }
    }

    /// Opens a change, however long nobody can be asked for its key. It stays sealed when the key is not there: who listens to this
    /// customer waits for it, and nobody else. `None` when the service stops.
    pub(super) async fn open(&self, change: event::CustomerChange) -> Option<Change> {
        let mut pause = FIRST_PAUSE;
        loop {
            match event::open(&self.opener, vec![change.clone()]).await {
                Ok(mut opened) => {
                    let opened = opened.pop()?.inspect_err(|unopened| waits(FEED, unopened));
                    return Some(match opened {
                        Ok(customer) => Change::Open(Arc::new(customer)),
                        Err(_) => Change::Sealed(Box::new(change)),
                    });
                }
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

    /// Every change of one customer from now on, each when the replica holds it. The stream ends when the service stops.
    pub async fn subscribe(
        &self,
        id: &str,
    ) -> impl Stream<Item = Result<ReplicaCustomer, LiveError>> + Send + use<> {
        let place = CustomerPlace::default();
        let items = self
            .begin(id, place, &FeedRequest::default())
            .await
            .into_stream();
        items.filter_map(|item| {
            future::ready(match item {
                Ok(CustomerItem::Update(update)) => Some(Ok(Arc::unwrap_or_clone(update.customer))),
                Ok(CustomerItem::Snapshot(_) | CustomerItem::Heartbeat(_)) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// The customer as it is, if that is asked for, and every change since; or every change behind a cursor. The stream ends when the
    /// service stops.
    ///
    /// # Errors
    /// [`LiveError::BadCursor`] for a cursor that cannot be read; one that does not fit the log is the stream's first item.
    pub async fn follow(
        &self,
        id: &str,
        request: FeedRequest<'_>,
    ) -> Result<impl Stream<Item = Result<CustomerItem, LiveError>> + Send + use<>, LiveError> {
        let place = match request.after {
            Some(after) => CustomerPlace::decode(after)?,
            None => CustomerPlace::default(),
        };
        Ok(self.begin(id, place, &request).await.into_stream())
    }

    async fn begin(
        &self,
        id: &str,
        mut place: CustomerPlace,
        request: &FeedRequest<'_>,
    ) -> CustomerSubscription {
        let phase = if request.after.is_some() {
            Phase::Resume
        } else if request.snapshot {
            let (queue, positions) = self.subscribers.join(Channel::Customer(id.to_owned()));
            place.seen = positions.unwrap_or_default();
            Phase::Snapshot(queue)
        } else {
            // What is readable already is no news, though its event may come again after a crash of the relay. Read before joining:
            // whatever is newer is heard, or has passed before.
            let shown = self.shown(id).await.unwrap_or_else(|error| {
                tracing::warn!(feed = FEED, %error, "an event that came before may be told again");
                Shown::default()
            });
            place.revision = shown.revision();
            let (queue, positions) = self.subscribers.join(Channel::Customer(id.to_owned()));
            place.seen = positions.unwrap_or_default();
            let missing = self.missing(id, &shown, &place.seen);
            cursor::step_back(&mut place.seen, &missing);
            Phase::Behind(queue, missing)
        };
        let (feed, id) = (self.clone(), id.to_owned());
        CustomerSubscription::new(feed, id, place, request.after, phase, request.heartbeat)
    }

    /// What the replica shows of a customer.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn shown(&self, id: &str) -> Result<Shown, StoreError> {
        // Asked in this order, so that each change is below what was taken, or heard; set aside, or in what is read then.
        let taken = self.progress.taken().await?;
        let set_aside = if taken.is_any_set_aside {
            self.progress.set_aside(id).await?
        } else {
            Offsets::new()
        };
        Ok(Shown {
            customer: self.replica.get(id).await?,
            taken: Some(taken.positions),
            set_aside,
        })
    }

    /// From where on the log may have changes of a customer that have passed and are not in what the replica showed: nowhere, most often.
    pub(super) fn missing(&self, id: &str, shown: &Shown, passed: &Offsets) -> Offsets {
        let mut from = shown.set_aside.clone();
        cursor::step_back(&mut from, &self.recent.newer(id, shown.revision()));
        if let Some(taken) = &shown.taken {
            cursor::step_back(&mut from, &self.recent.forgotten(taken, passed));
        }
        from
    }
}

/// What the replica shows of a customer, and how far it had come before it was asked.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) customer: Option<ReplicaCustomer>,
    /// Everything below these positions is in it, or set aside; `None` if the store could not tell.
    taken: Option<Offsets>,
    /// The first of this customer's changes that are set aside.
    set_aside: Offsets,
}

impl Shown {
    /// The customer's revision; 0 if there is none.
    pub(super) fn revision(&self) -> i64 {
        self.customer.as_ref().map_or(0, |it| it.revision)
    }
}

impl CustomerSubscription {
    fn into_stream(self) -> impl Stream<Item = Result<CustomerItem, LiveError>> + Send + use<> {
        stream::unfold(self, |mut subscription| async move {
            let next = subscription.next().await?;
            Some((next, subscription))
        })
    }
}
