//! The feed of customers' changes. Each change is delivered after the replica shows it.
//!
//! While nobody subscribes, the log is read patiently, in long fetches. Reading each change at once would double the
//! load on the brokers and on the replica's own reader.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future, stream};
use tandem_event_path::data_keys::Opener;
use tandem_model::message::Message;
use tandem_runtime::shutdown::Shutdown;

use super::{
    FeedRequest, LiveError,
    cursor::{self, CustomerPlace, InLog},
    customer_common::{CustomerFeed, FEED, Seen, Shown},
    customer_subscription::{CustomerSubscription, Phase},
    delivery::Delivery,
    item::{CustomerItem, published_at},
    log::{Attention, BACKOFF, Log, LogReader, begin, next_message},
    recent::Recent,
    subscribers::{Channel, Subscribers},
};
use crate::replica::{Replica, ReplicaCustomer, event, progress::Progress};

/// How long the feed must be without listeners before the log is read patiently.
const DESERTED: Duration = Duration::from_secs(10);

/// The number of messages of each partition that are read again at the start, because the replica may not show the last
/// of them yet.
const LOOK_BACK: i64 = 2_000;

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
            subscribers: Subscribers::looking_back(
                metrics::gauge!("live_subscribers", "subscription" => "customerUpdated"),
                LOOK_BACK,
            ),
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

    /// Waits until the feed reads the log. Later subscribers hear of everything that is appended from then on.
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

    /// Reads promptly until the feed has been without listeners for a while. Returns false when the service stops.
    async fn read_promptly(&self, log: &dyn Log, reader: &mut Box<dyn LogReader>) -> bool {
        let deserted = self.subscribers.deserted(DESERTED, self.shutdown.clock());
        self.read_until(deserted, log, reader, Attention::Prompt)
            .await
            && self.turn(log, reader, Attention::Patient).await
    }

    /// Reads patiently until somebody listens. Returns false when the service stops.
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

    /// Replaces the reader by one that continues at the same positions. Returns false when the service stops.
    async fn turn(
        &self,
        log: &dyn Log,
        reader: &mut Box<dyn LogReader>,
        attention: Attention,
    ) -> bool {
        let mut pauses = BACKOFF.pauses(self.shutdown.clock());
        loop {
            let from = self.subscribers.positions().unwrap_or_default();
            let pause = pauses.next_pause();
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
        // A message that cannot be read is parked by the projection of the replica.
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
                            positions,
                            change: Arc::new(change),
                            published_at: published_at(message),
                            delivery,
                        })
                    });
            }
            None => self.subscribers.pass(message.position),
        }
    }

    /// Every later change of one customer, each when the replica holds it. The stream ends when the service stops.
    pub async fn subscribe(
        &self,
        id: &str,
    ) -> impl Stream<Item = Result<ReplicaCustomer, LiveError>> + Send + use<> {
        let place = CustomerPlace::of(id);
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

    /// The customer's present state, if requested, and every later change; or every change after a cursor. The stream
    /// ends when the service stops.
    ///
    /// # Errors
    /// [`LiveError::BadCursor`] for a cursor that cannot be read. A cursor that does not fit the log is the first item
    /// of the stream.
    pub async fn follow(
        &self,
        id: &str,
        request: FeedRequest<'_>,
    ) -> Result<impl Stream<Item = Result<CustomerItem, LiveError>> + Send + use<>, LiveError> {
        let place = match request.after {
            Some(after) => CustomerPlace::decode_of(after, id)?,
            None => CustomerPlace::of(id),
        };
        place.check(self.log.as_ref())?;
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
            place.seen = positions.map(Arc::unwrap_or_clone).unwrap_or_default();
            Phase::Snapshot(queue)
        } else {
            // A change that the replica shows already is not new, although a relay may publish its event again after a
            // crash. The state is read before joining: a newer change is heard, or has passed before.
            let shown = self.shown(id).await.unwrap_or_else(|error| {
                tracing::warn!(feed = FEED, %error, "an event that came before may be told again");
                Shown::default()
            });
            place.revision = shown.revision();
            let (queue, positions) = self.subscribers.join(Channel::Customer(id.to_owned()));
            place.seen = positions.map(Arc::unwrap_or_clone).unwrap_or_default();
            let missing = self.missing(id, &shown, &place.seen);
            cursor::step_back(&mut place.seen, &missing);
            Phase::Behind(queue, missing)
        };
        let (feed, id) = (self.clone(), id.to_owned());
        CustomerSubscription::new(feed, id, place, request.after, phase, request.heartbeat)
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
