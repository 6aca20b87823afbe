//! The feed of orders' changes. It sends each change once, keeps the order of each order's changes, and can be resumed.

use std::{
    array,
    sync::{Arc, OnceLock},
};

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, future, stream};
use tandem_event_path::{data_keys::Opener, store::ChangeLog};
use tandem_model::message::{Message, Position};
use tandem_runtime::shutdown::Shutdown;

use super::{
    FeedRequest, LiveError,
    audit_lookup::AuditLookup,
    cursor::{InLog, Place},
    deduplication::{CLOCK_SKEW, Occurrence, SeenRevisions},
    delivery::Delivery,
    interest::Interest,
    item::{Chain, OrderItem, OrderUpdate, published_at},
    log::{Attention::Prompt, Log, begin, next_message},
    order_common::{Common, FEED, read},
    seen::Seen,
    snapshot::Snapshots,
    subscribers::{Channel, Subscribers},
    subscription::{OrderSubscription, Phase},
};
use crate::domain::OrderChangeEvent;

/// The feed of orders' changes. Clones share the same state.
#[derive(Clone)]
pub struct OrderFeed(Arc<Common>);

impl OrderFeed {
    /// Starts to read the log at its end. `changes` is the audit trail that is built from the same log.
    #[must_use]
    pub(super) fn start(
        log: Arc<dyn Log>,
        snapshots: Snapshots,
        changes: Arc<dyn ChangeLog>,
        opener: Opener,
        shutdown: &Shutdown,
    ) -> Self {
        let feed = Self(Arc::new(Common {
            log,
            subscribers: Subscribers::new(
                metrics::gauge!("live_subscribers", "subscription" => "orderUpdated"),
            ),
            audit_lookup: AuditLookup::start(changes, shutdown),
            snapshots,
            opener,
            shutdown: shutdown.clone(),
        }));
        feed.0.subscribers.start(shutdown);
        shutdown.spawn(feed.clone().run());
        feed
    }

    /// Waits until the feed reads the log. Later subscribers hear of everything that is appended from then on.
    pub async fn begun(&self) {
        self.0.subscribers.begun().await;
    }

    async fn run(self) {
        let started = DateTime::<Utc>::from(self.0.shutdown.clock().now()) - CLOCK_SKEW;
        let begun = begin(
            self.0.log.as_ref(),
            &self.0.subscribers,
            FEED,
            &self.0.shutdown,
        )
        .await;
        if let Some((mut reader, ends)) = begun {
            let mut memory = SeenRevisions::from(self.0.shutdown.clock().now().into());
            let seen = || self.0.subscribers.positions().unwrap_or_default();
            while let Some(message) = next_message(
                self.0.log.as_ref(),
                &mut reader,
                Prompt,
                seen,
                FEED,
                &self.0.shutdown,
            )
            .await
            {
                let Position { partition, offset } = message.position;
                let was_there = ends.get(&partition).is_some_and(|next| offset < *next);
                let event = read(&message)
                    .filter(|event| !was_there || event.changed_at.as_datetime() >= started);
                match event {
                    Some(event) => self.take(event, &message, &mut memory).await,
                    None => self.0.subscribers.pass(message.position),
                }
            }
        }
        self.0.subscribers.close();
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
        let lookup = match memory.classify(&event) {
            Occurrence::New => {
                memory.seen(&event);
                None
            }
            Occurrence::Repeated => {
                self.0.subscribers.pass(position);
                return;
            }
            Occurrence::Unknown => {
                if self.0.subscribers.pass_unless_heard(&channels, position) {
                    memory.passed(&event.id);
                    return;
                }
                let lookup = self.0.audit_lookup.ask(&event, position);
                memory.asked(&event, &lookup);
                Some(lookup)
            }
        };
        let Some(event) = self.0.open(event).await else {
            self.0.subscribers.pass(position);
            return;
        };
        let made = event.changed_at.as_datetime();
        let clock = self.0.shutdown.clock();
        let delivery = Arc::new(Delivery::of(message, "orderUpdated", made, clock));
        self.0
            .subscribers
            .deliver(&channels, position, |positions| {
                Arc::new(Seen {
                    delivery,
                    position,
                    positions,
                    published_at: published_at(message),
                    event,
                    is_early,
                    lookup,
                    templates: Arc::default(),
                    order: OnceLock::new(),
                    cursors: array::from_fn(|_| OnceLock::new()),
                })
            });
    }

    /// Every later change, or every change after the cursor `after`. The stream ends when the service stops.
    ///
    /// # Errors
    /// [`LiveError::BadCursor`] for a cursor that cannot be read, or that belongs to a feed with another filter. A
    /// cursor that does not fit the log is the first item of the stream.
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
                // The cursor may come from a feed that began with a snapshot. The rest of the snapshot is only for
                // subscribers of that feed.
                Ok(OrderItem::Snapshot(_) | OrderItem::Heartbeat(_)) => None,
                Err(error) => Some(Err(error)),
            })
        }))
    }

    /// The present orders, if requested, and every later change; or, after a cursor, what is left of both. The stream
    /// ends when the service stops.
    ///
    /// # Errors
    /// The errors of [`Self::subscribe`].
    pub fn follow(
        &self,
        interest: Interest,
        request: FeedRequest<'_>,
    ) -> Result<impl Stream<Item = Result<OrderItem, LiveError>> + Send + use<>, LiveError> {
        let mut since = None;
        let filter = interest.in_short();
        let (place, chain, phase) = match request.after {
            Some(after) => {
                let place = Place::decode_of(after, filter)?;
                place.check(self.0.log.as_ref())?;
                let phase = match place.snapshot.as_deref() {
                    Some("") => Phase::Begin,
                    Some(_) => Phase::Snapshot(None),
                    None => Phase::Resume,
                };
                (place, Chain::from(Some(after.into())), phase)
            }
            None if request.snapshot => (Place::of(filter), Chain::from(None), Phase::Begin),
            None => {
                let (queue, positions) = self.0.subscribers.join(interest.channel());
                if positions.is_none() {
                    since = Some(DateTime::<Utc>::from(self.0.shutdown.clock().now()) - CLOCK_SKEW);
                }
                let begin = positions.map(|positions| Place::of(filter).at(positions));
                let chain = Chain::from(
                    begin
                        .as_ref()
                        .map(|place| place.encode(self.0.log.as_ref())),
                );
                (
                    begin.unwrap_or_else(|| Place::of(filter)),
                    chain,
                    Phase::Live(queue),
                )
            }
        };
        let (feed, heartbeat) = (Arc::clone(&self.0), request.heartbeat);
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
