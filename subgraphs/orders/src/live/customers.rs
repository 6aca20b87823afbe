//! The feed of customers' changes: each after the replica shows it.
//!
//! While nobody listens, the log is read patiently: reading each change at once would cost the brokers, and the replica's own
//! reader, as much again.

use std::{sync::Arc, time::Duration};

use futures::{Stream, stream};
use tandem_kit::{data_keys::Opener, kafka::message::Message, shutdown::Shutdown};

use super::{
    LiveError,
    audience::{Audience, Channel, Seat},
    log::{Attention, FIRST_PAUSE, LONGEST_PAUSE, Log, LogReader, begin, next_message, replace},
};
use crate::replica::{LONGEST_WAIT, Replica, ReplicaCustomer, Waited, event};

const FEED: &str = "customers";

/// How long nobody must have listened before the log is read patiently.
const DESERTED: Duration = Duration::from_secs(10);

/// The feed of customers' changes. Clones share it.
#[derive(Clone)]
pub struct CustomerFeed {
    audience: Audience<Arc<ReplicaCustomer>>,
    replica: Replica,
    opener: Opener,
    shutdown: Shutdown,
}

impl CustomerFeed {
    /// Starts to read the log at its end.
    #[must_use]
    pub fn start(log: Arc<dyn Log>, replica: Replica, opener: Opener, shutdown: &Shutdown) -> Self {
        let feed = Self {
            audience: Audience::new(
                metrics::gauge!("live_subscribers", "subscription" => "customerUpdated"),
            ),
            replica,
            opener,
            shutdown: shutdown.clone(),
        };
        shutdown.spawn(feed.clone().run(log));
        feed
    }

    /// Waits until the feed reads the log: whoever subscribes then hears of all that is appended from then on.
    pub async fn begun(&self) {
        self.audience.begun().await;
    }

    async fn run(self, log: Arc<dyn Log>) {
        let begun = begin(log.as_ref(), &self.audience, FEED, &self.shutdown).await;
        if let Some((mut reader, _)) = begun {
            while self.read_promptly(log.as_ref(), &mut reader).await
                && self.read_patiently(log.as_ref(), &mut reader).await
            {}
        }
        self.audience.close();
    }

    /// Reads until nobody has listened for a while. Returns false when the service stops.
    async fn read_promptly(&self, log: &dyn Log, reader: &mut Box<dyn LogReader>) -> bool {
        let deserted = self.audience.deserted(DESERTED);
        self.read_until(deserted, log, reader, Attention::Prompt)
            .await
            && self.turn(log, reader, Attention::Patient).await
    }

    /// Reads until somebody listens. Returns false when the service stops.
    async fn read_patiently(&self, log: &dyn Log, reader: &mut Box<dyn LogReader>) -> bool {
        let occupied = self.audience.occupied();
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
        let seen = || self.audience.positions().unwrap_or_default();
        tokio::pin!(end);
        loop {
            let message = tokio::select! {
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
            let from = self.audience.positions().unwrap_or_default();
            match log.open(&from, attention).await {
                Ok(fresh) => {
                    replace(reader, fresh);
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
        let channel = [Channel::Customer(message.key.clone().unwrap_or_default())];
        if self.audience.pass_unless_heard(&channel, message.position) {
            return;
        }
        // What cannot be read the replica's projection sets aside.
        let opened = match event::read(message) {
            Ok(change) => self.open(change).await,
            Err(_) => None,
        };
        match opened {
            Some(customer) => {
                self.audience
                    .deliver(&channel, message.position, |_| Arc::new(customer));
            }
            None => self.audience.pass(message.position),
        }
    }

    /// Opens a change, however long its key cannot be told. `None` when it does not open, or the service stops.
    async fn open(&self, change: event::CustomerChange) -> Option<ReplicaCustomer> {
        let mut pause = FIRST_PAUSE;
        loop {
            match event::open(&self.opener, vec![change.clone()]).await {
                Ok(mut opened) => return opened.pop(),
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
        // What is readable already is not news, though its event may come again after a crash of the relay. Read before
        // joining: whatever is newer is heard.
        let newest = match self.replica.get(id).await {
            Ok(held) => held.map_or(0, |customer| customer.revision),
            Err(error) => {
                tracing::warn!(feed = FEED, %error, "an event that came before may be told again");
                0
            }
        };
        let (seat, _) = self.audience.join(Channel::Customer(id.to_owned()));
        let subscriber = Subscriber {
            feed: self.clone(),
            seat: Some(seat),
            newest,
        };
        stream::unfold(subscriber, |mut subscriber| async move {
            let next = subscriber.next().await?;
            Some((next, subscriber))
        })
    }
}

struct Subscriber {
    feed: CustomerFeed,
    /// `None` when nothing more comes.
    seat: Option<Seat<Arc<ReplicaCustomer>>>,
    /// The newest revision that was handed out, or was readable before.
    newest: i64,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Result<ReplicaCustomer, LiveError>> {
        loop {
            let seat = self.seat.as_mut()?;
            let Some(customer) = seat.next().await else {
                let lagged = seat.has_lagged();
                self.seat = None;
                return lagged.then_some(Err(LiveError::Lagged { cursor: None }));
            };
            if customer.revision <= self.newest {
                continue;
            }
            self.newest = customer.revision;
            return self.once_readable(&customer).await.map(Ok);
        }
    }

    async fn once_readable(&mut self, customer: &ReplicaCustomer) -> Option<ReplicaCustomer> {
        let (id, revision) = (&customer.id, customer.revision);
        let mut pause = FIRST_PAUSE;
        loop {
            let waited = tokio::select! {
                () = self.feed.shutdown.requested() => return None,
                waited = self.feed.replica.wait_for_revision(id, revision, LONGEST_WAIT) => waited,
            };
            match waited {
                Ok(Waited::Arrived(held)) if held.revision == revision => return Some(*held),
                Ok(Waited::Arrived(_)) => return Some(customer.clone()),
                Ok(Waited::Behind(_)) => {}
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "a subscriber waits for the replica");
                    if !self.feed.shutdown.sleep(pause).await {
                        return None;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
