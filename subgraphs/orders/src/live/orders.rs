//! The feed of orders' changes: each change once, in order per order, resumable.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, future, stream};
use tandem_event_path::log::Offsets;
use tandem_event_path::{
    data_keys::Opener,
    store::{AggregateStore, ChangeLog},
};
use tandem_model::{
    cloudevents,
    message::{Message, Position},
};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::graphql::written::Templates;

use super::{
    FeedRequest, LiveError,
    cursor::Place,
    deduplication::{CLOCK_SKEW, Occurrence, SeenRevisions},
    delivery::Delivery,
    item::{Chain, OrderItem, OrderUpdate, published_at},
    log::{Attention::Prompt, FIRST_PAUSE, LONGEST_PAUSE, Log, begin, next_message, waits},
    snapshot::Snapshots,
    subscribers::{Channel, Subscribers},
    subscription::{OrderSubscription, Phase},
    verdicts::{Case, Verdicts},
};
use crate::{
    domain::{Order, OrderChangeEvent},
    erasure,
};

pub(super) const FEED: &str = "orders";

/// Which orders a subscriber wants to hear of; of all if neither is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Only this customer's.
    pub customer_id: Option<String>,
    /// Only this one.
    pub order_id: Option<String>,
}

impl Interest {
    pub(super) fn channel(&self) -> Channel {
        match (&self.order_id, &self.customer_id) {
            (Some(id), _) => Channel::Order(id.clone()),
            (None, Some(id)) => Channel::Customer(id.clone()),
            (None, None) => Channel::All,
        }
    }

    /// Whether an order, or a change of one, is wanted.
    pub(super) fn wants(&self, what: &impl OfCustomer) -> bool {
        let is =
            |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|wanted| wanted == id);
        is(&self.order_id, what.order_id()) && is(&self.customer_id, what.customer_id())
    }
}

/// What is of one order of one customer.
pub(super) trait OfCustomer {
    fn order_id(&self) -> &str;
    fn customer_id(&self) -> &str;
}

impl OfCustomer for Order {
    fn order_id(&self) -> &str {
        &self.id
    }
    fn customer_id(&self) -> &str {
        &self.customer_id
    }
}

impl OfCustomer for OrderChangeEvent {
    fn order_id(&self) -> &str {
        &self.id
    }
    fn customer_id(&self) -> &str {
        &self.customer_id
    }
}

/// A first occurrence, or what may be one, as the feed hands it to its listeners.
pub(super) struct Seen {
    pub(super) position: Position,
    /// How far the feed had come with it.
    pub(super) positions: Offsets,
    pub(super) published_at: Option<DateTime<Utc>>,
    /// Opened; still sealed if its data key is not there.
    pub(super) event: OrderChangeEvent,
    /// Whether the change before it has not been read.
    pub(super) is_early: bool,
    pub(super) delivery: Arc<Delivery>,
    /// What the audit trail is to say of it, where it is not known whether it was in the log before: it is told when that is known.
    pub(super) case: Option<Arc<Case>>,
    /// What is written of it for its listeners.
    pub(super) templates: Arc<Templates>,
    order: OnceLock<Arc<Order>>,
}

impl Seen {
    /// The order as it was after the change; the same for all who ask.
    pub(super) fn order(&self) -> Arc<Order> {
        let order = || Arc::new(self.event.clone().into_order());
        Arc::clone(self.order.get_or_init(order))
    }
}

/// The feed of orders' changes. Clones share it.
#[derive(Clone)]
pub struct OrderFeed {
    pub(super) log: Arc<dyn Log>,
    pub(super) subscribers: Subscribers<Arc<Seen>>,
    pub(super) verdicts: Verdicts,
    pub(super) snapshots: Snapshots,
    pub(super) opener: Opener,
    pub(super) shutdown: Shutdown,
}

pub(super) fn read(message: &Message) -> Option<OrderChangeEvent> {
    // What cannot be read is the audit projection's to set aside.
    let event = cloudevents::read(message).ok()?;
    OrderChangeEvent::read(&event).ok()
}

impl OrderFeed {
    /// Starts to read the log at its end; `changes` is the audit trail that is made from the same log, `orders` what snapshots are of.
    #[must_use]
    pub fn start(
        log: Arc<dyn Log>,
        orders: Arc<dyn AggregateStore<Order>>,
        changes: Arc<dyn ChangeLog>,
        opener: Opener,
        shutdown: &Shutdown,
    ) -> Self {
        let feed = Self {
            log,
            subscribers: Subscribers::new(
                metrics::gauge!("live_subscribers", "subscription" => "orderUpdated"),
            ),
            verdicts: Verdicts::start(Arc::clone(&changes), shutdown),
            snapshots: Snapshots::new(orders, changes),
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
        let started = DateTime::<Utc>::from(self.shutdown.clock().now()) - CLOCK_SKEW;
        let begun = begin(self.log.as_ref(), &self.subscribers, FEED, &self.shutdown).await;
        if let Some((mut reader, ends)) = begun {
            let mut memory = SeenRevisions::from(self.shutdown.clock().now().into());
            let seen = || self.subscribers.positions().unwrap_or_default();
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
                    Some(event) => self.take(event, &message, &mut memory).await,
                    None => self.subscribers.pass(message.position),
                }
            }
        }
        self.subscribers.close();
    }

    async fn take(&self, event: OrderChangeEvent, message: &Message, memory: &mut SeenRevisions) {
        let position = message.position;
        let channels = [
            Channel::All,
            Channel::Order(event.id.clone()),
            Channel::Customer(event.customer_id.clone()),
        ];
        memory.settle(&event.id);
        let is_early = memory.leaves_out(&event);
        let case = match memory.classify(&event) {
            Occurrence::New => {
                memory.seen(&event);
                None
            }
            Occurrence::Repeated => {
                self.subscribers.pass(position);
                return;
            }
            Occurrence::Unknown => {
                if self.subscribers.pass_unless_heard(&channels, position) {
                    memory.passed(&event.id);
                    return;
                }
                let case = self.verdicts.ask(&event, position);
                memory.asked(&event, &case);
                Some(case)
            }
        };
        let Some(event) = self.open(event).await else {
            self.subscribers.pass(position);
            return;
        };
        let made = event.changed_at.as_datetime();
        let clock = self.shutdown.clock();
        let delivery = Arc::new(Delivery::of(message, "orderUpdated", made, clock));
        self.subscribers.deliver(&channels, position, |positions| {
            Arc::new(Seen {
                delivery,
                position,
                positions: positions.clone(),
                published_at: published_at(message),
                event,
                is_early,
                case,
                templates: Arc::default(),
                order: OnceLock::new(),
            })
        });
    }

    /// Opens an event, however long nobody can be asked for its key. It stays sealed when the key is not there: the change waits, and
    /// nobody else with it. `None` when the service stops.
    pub(super) async fn open(&self, event: OrderChangeEvent) -> Option<OrderChangeEvent> {
        if event.sealed.is_none() {
            return Some(event);
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match erasure::open(&self.opener, vec![event.clone()]).await {
                Ok(mut opened) => {
                    let opened = opened.pop()?.inspect_err(|unopened| waits(FEED, unopened));
                    return Some(opened.unwrap_or(event));
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

    /// Every change from now on, or behind the cursor `after`. The stream ends when the service stops.
    ///
    /// # Errors
    /// [`LiveError::BadCursor`] for a cursor that cannot be read; one that does not fit the log is the stream's first item.
    pub fn subscribe(
        &self,
        interest: Interest,
        after: Option<&str>,
    ) -> Result<impl Stream<Item = Result<OrderUpdate, LiveError>> + Send + use<>, LiveError> {
        let request = FeedRequest {
            after,
            snapshot: false,
            heartbeat: None,
        };
        let items = self.follow(interest, request)?;
        Ok(items.filter_map(|item| {
            future::ready(match item {
                Ok(OrderItem::Update(update)) => Some(Ok(update)),
                // The cursor is of a feed that began with a snapshot: what is left of that is for those who ask for it.
                Ok(OrderItem::Snapshot(_) | OrderItem::Heartbeat(_)) => None,
                Err(error) => Some(Err(error)),
            })
        }))
    }

    /// The orders that there are, if they are asked for, and every change since; or, behind a cursor, what is left of that. The stream
    /// ends when the service stops.
    ///
    /// # Errors
    /// As those of [`Self::subscribe`].
    pub fn follow(
        &self,
        interest: Interest,
        request: FeedRequest<'_>,
    ) -> Result<impl Stream<Item = Result<OrderItem, LiveError>> + Send + use<>, LiveError> {
        let mut since = None;
        let (place, chain, phase) = match request.after {
            Some(after) => {
                let place = Place::decode(after)?;
                let phase = match place.snapshot.as_deref() {
                    Some("") => Phase::Begin,
                    Some(_) => Phase::Snapshot(None),
                    None => Phase::Resume,
                };
                (place, Chain::from(Some(after.to_owned())), phase)
            }
            None if request.snapshot => (Place::default(), Chain::from(None), Phase::Begin),
            None => {
                let (queue, positions) = self.subscribers.join(interest.channel());
                if positions.is_none() {
                    since = Some(DateTime::<Utc>::from(self.shutdown.clock().now()) - CLOCK_SKEW);
                }
                let begin = positions.map(Place::at);
                let chain = Chain::from(begin.as_ref().map(Place::encode));
                (begin.unwrap_or_default(), chain, Phase::Live(queue))
            }
        };
        let (feed, heartbeat) = (self.clone(), request.heartbeat);
        let mut subscription =
            OrderSubscription::new(feed, interest, place, chain, phase, heartbeat);
        subscription.since = since;
        Ok(stream::unfold(
            subscription,
            |mut subscription| async move {
                let next = subscription.next().await?;
                Some((next, subscription))
            },
        ))
    }
}
