//! Sends events: for each key the next one, once nothing of that key is in flight. An event goes out together with its
//! companions, such as its data key.

use std::sync::Arc;

use futures::{
    FutureExt,
    future::{BoxFuture, try_join_all},
    stream::FuturesUnordered,
};

use super::Relay;
use crate::{
    fault::{self, Fault},
    log::{PublishError, Publisher, Record},
    outbox::{Companion, PendingEvent},
    spans,
};
use tandem_model::cloudevents;
use tandem_runtime::span::Span;

/// Events in flight to Kafka at once.
const WINDOW: usize = 2_000;

/// The outcome of an event that was sent.
pub(super) struct Delivery {
    pub(super) key: String,
    pub(super) event: PendingEvent,
    pub(super) result: Result<(), PublishError>,
    pub(super) span: Span,
}

impl Relay {
    /// Sends the next event of each key that has one and has nothing in flight.
    pub(super) fn send_ready(
        &mut self,
        in_flight: &mut FuturesUnordered<BoxFuture<'static, Delivery>>,
    ) {
        if self.paused_until.is_some() {
            return;
        }
        while in_flight.len() < WINDOW {
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            let Some(event) = self
                .keys
                .get_mut(&key)
                .and_then(|queue| queue.waiting.pop_front())
            else {
                continue;
            };
            fault::abort_if_ordered(fault::Instant::BeforePublish, self.topic);
            if fault::is_on(Fault::ClearBeforePublish) {
                self.to_clear.insert(key.clone(), event.revision);
            }
            let span = spans::publishing(self.topic, &event.key, &event.event);
            if !event.companions.is_empty() {
                self.flies(&key, event.revision);
                let (publisher, topic) = (Arc::clone(&self.publisher), self.topic);
                let together = self.companions_are_taken && may_go_together(&event);
                in_flight.push(
                    async move {
                        let result =
                            send_with_companions(&*publisher, topic, &event, together).await;
                        Delivery {
                            key,
                            event,
                            result,
                            span,
                        }
                    }
                    .boxed(),
                );
                continue;
            }
            match self.publisher.send(&record_of(self.topic, &event)) {
                Ok(delivery) => {
                    self.flies(&key, event.revision);
                    in_flight.push(
                        async move {
                            let result = delivery.await.map(drop);
                            Delivery {
                                key,
                                event,
                                result,
                                span,
                            }
                        }
                        .boxed(),
                    );
                }
                Err(error) => {
                    if matches!(error, PublishError::Refused(_)) && self.refuse(&event, &error) {
                        continue;
                    }
                    if let Some(queue) = self.keys.get_mut(&key) {
                        queue.waiting.push_front(event);
                    }
                    self.ready.push_front(key);
                    self.back_off(&error);
                    return;
                }
            }
        }
    }

    /// Notes that a revision of a key is in flight.
    fn flies(&mut self, key: &str, revision: i64) {
        if let Some(queue) = self.keys.get_mut(key) {
            queue.in_flight = Some(revision);
            if fault::is_on(Fault::KeyOrderOvertaken) && !queue.waiting.is_empty() {
                self.ready.push_back(key.to_owned());
            }
        }
    }
}

/// Whether an event and its companions may be sent at the same time. A tombstone must be acknowledged before its event.
fn may_go_together(event: &PendingEvent) -> bool {
    event
        .companions
        .iter()
        .all(|companion| companion.payload.is_some())
}

/// Sends an event with its companions. The event counts as published when all are acknowledged. With `together` all are
/// sent at once, which saves round trips to the log; readers wait for a companion that is late. Otherwise each is sent
/// after the one before it is acknowledged, and the event is last.
async fn send_with_companions(
    publisher: &dyn Publisher,
    topic: &str,
    event: &PendingEvent,
    together: bool,
) -> Result<(), PublishError> {
    let mut deliveries = Vec::with_capacity(event.companions.len());
    for companion in &event.companions {
        let delivery = publisher.send(&companion_record(companion))?;
        if together {
            deliveries.push(delivery);
        } else {
            delivery.await?;
        }
    }
    deliveries.push(publisher.send(&record_of(topic, event))?);
    try_join_all(deliveries).await.map(drop)
}

fn companion_record(companion: &Companion) -> Record<'_> {
    let payload = companion.payload.as_deref().map(str::as_bytes);
    Record::new(&companion.topic, &companion.key, payload)
}

fn record_of<'a>(topic: &'a str, event: &'a PendingEvent) -> Record<'a> {
    Record {
        headers: cloudevents::headers(&event.event),
        ..Record::new(topic, &event.key, Some(event.event.data.as_bytes()))
    }
}
