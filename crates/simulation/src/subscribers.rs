//! Subscribers. Some listen to all orders, and resume by cursor when their connection breaks. Others listen to one
//! customer.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, pin_mut};
use tandem_orders::{
    domain::Order,
    live::{FeedRequest, Interest, LiveError, item::OrderItem},
    replica::ReplicaCustomer,
};
use tandem_runtime::clock::Clock;
use tokio::sync::mpsc;

use crate::{
    chance::draw,
    clients::Known,
    history::{CustomerHeard, History, OrdersHeard},
    system::{Orders, System},
};

/// The interval of heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a subscriber to all orders requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// The present orders and their changes: `orderFeed`.
    Everything,
    /// Only changes: `orderUpdated`.
    Changes,
}

/// The maximum number of items in transit on a connection.
const CARRIED: usize = 16;

/// An item on a connection.
enum Carried<T> {
    /// The subscription has begun.
    Begun,
    /// The next item of the stream.
    Told(Result<T, LiveError>),
    /// The cursor was refused.
    BadCursor,
}

type Connection<T> = mpsc::Receiver<Carried<T>>;

/// Opens a stream in an instance of orders. The receiver ends when the stream or the instance ends.
fn connect<T, S, F>(
    system: &System,
    open: impl FnOnce(Arc<Orders>) -> F + Send + 'static,
) -> Option<Connection<T>>
where
    T: Send + 'static,
    S: Stream<Item = Result<T, LiveError>> + Send + 'static,
    F: Future<Output = Option<S>> + Send + 'static,
{
    let slot = draw(|chance| chance.pick(&system.orders_slots).cloned())?;
    let (process, orders) = slot.service()?;
    let (carry, carried) = mpsc::channel(CARRIED);
    let world = system.world.clone();
    drop(process.shutdown.spawn(async move {
        let Some(stream) = open(Arc::new(orders)).await else {
            let _ = carry.send(Carried::BadCursor).await;
            return;
        };
        pin_mut!(stream);
        let mut next = Carried::Begun;
        loop {
            // The network takes time.
            world.effect(Duration::from_millis(1), || ()).await;
            if carry.send(next).await.is_err() {
                return;
            }
            let told = tokio::select! {
                biased;
                () = carry.closed() => return,
                told = stream.next() => told,
            };
            match told {
                Some(told) => next = Carried::Told(told),
                None => return,
            }
        }
    }));
    Some(carried)
}

fn connect_to_orders(
    system: &System,
    wants: Wants,
    cursor: Option<Arc<str>>,
) -> Option<Connection<OrderItem>> {
    connect(system, move |orders| async move {
        if cursor.is_none() {
            orders.live.orders.begun().await;
        }
        let feed = &orders.live.orders;
        let request = FeedRequest {
            after: cursor.as_deref(),
            snapshot: wants == Wants::Everything,
            heartbeat: (wants == Wants::Everything).then_some(HEARTBEAT),
        };
        let items = match wants {
            Wants::Everything => feed.follow(Interest::default(), request).ok()?.boxed(),
            Wants::Changes => {
                let changes = feed.subscribe(Interest::default(), request.after).ok()?;
                changes.map(|it| it.map(OrderItem::Update)).boxed()
            }
        };
        Some(items)
    })
}

fn connect_to_customer(system: &System, id: &str) -> Option<Connection<ReplicaCustomer>> {
    let id = id.to_owned();
    connect(system, move |orders| async move {
        orders.live.customers.begun().await;
        Some(orders.live.customers.subscribe(&id).await)
    })
}

fn pause() -> Duration {
    Duration::from_millis(draw(|chance| chance.between(50, 2_000)))
}

/// Listens to all orders until the world ends.
pub async fn follow_orders(system: System, history: History) {
    let wants = if draw(|chance| chance.happens(500)) {
        Wants::Everything
    } else {
        Wants::Changes
    };
    let place = {
        let mut events = history.events();
        events.subscriptions.push(OrdersHeard {
            begins_with_snapshot: wants == Wants::Everything,
            ..OrdersHeard::default()
        });
        events.subscriptions.len() - 1
    };
    let mut cursor: Option<Arc<str>> = None;
    let clock = Clock::default();
    loop {
        if let Some(mut carried) = connect_to_orders(&system, wants, cursor.clone()) {
            // A client may also disconnect by itself, and come back with its cursor.
            let patience = Duration::from_secs(draw(|chance| chance.between(5, 90)));
            let listening = listen_to_orders(&system, &history, place, &mut carried, &mut cursor);
            let _ = clock.timeout(patience, listening).await;
        }
        system.world.sleep(pause()).await;
    }
}

async fn listen_to_orders(
    system: &System,
    history: &History,
    place: usize,
    carried: &mut Connection<OrderItem>,
    cursor: &mut Option<Arc<str>>,
) {
    while let Some(arrived) = carried.recv().await {
        match arrived {
            Carried::Begun => {}
            Carried::Told(Ok(item)) => {
                let now = system.world.elapsed();
                let mut events = history.events();
                let heard = &mut events.subscriptions[place];
                let mut hear = |order: &Order| {
                    let (id, revision) = (order.id.clone(), order.revision);
                    let note = || format!("subscriber {place} hears {id} {revision}");
                    system.world.note(note);
                    heard.heard.push((id, revision));
                };
                let (previous, behind) = match item {
                    OrderItem::Update(update) => {
                        hear(&update.order);
                        (update.previous, update.cursor)
                    }
                    OrderItem::Snapshot(page) => {
                        page.orders.iter().for_each(|order| hear(order));
                        heard.has_snapshot |= page.complete;
                        (page.previous, page.cursor)
                    }
                    OrderItem::Heartbeat(heartbeat) => (heartbeat.previous, heartbeat.cursor),
                };
                heard.resumable_since.get_or_insert(now);
                // This shows a client that it has missed nothing.
                if cursor.as_ref().is_some_and(|cursor| *cursor != previous) {
                    let told = format!("subscriber {place} is told that it has missed something");
                    events.violations.push(told);
                }
                *cursor = Some(behind);
            }
            Carried::Told(Err(LiveError::Lagged { cursor: behind })) => {
                if let Some(behind) = behind {
                    *cursor = Some(behind.into());
                }
                return;
            }
            Carried::Told(Err(LiveError::BadCursor(_))) | Carried::BadCursor => {
                // The cursor does not fit the log. The subscriber begins again, as one that has got nothing yet.
                *cursor = None;
                let mut events = history.events();
                let heard = &mut events.subscriptions[place];
                *heard = OrdersHeard {
                    begins_with_snapshot: heard.begins_with_snapshot,
                    ..OrdersHeard::default()
                };
                return;
            }
        }
    }
}

/// Listens to one customer after the other, each for a while, and to the last one until the world ends.
pub async fn follow_customers(system: System, history: History, known: Known) {
    let clock = Clock::default();
    loop {
        let id = draw(|chance| chance.pick(&known.customers()).cloned());
        if let Some(id) = id
            && let Some(mut carried) = connect_to_customer(&system, &id)
        {
            let patience = Duration::from_secs(draw(|chance| chance.between(10, 400)));
            let listening = listen_to_customer(&system, &history, &id, &mut carried);
            let _ = clock.timeout(patience, listening).await;
        }
        system.world.sleep(pause()).await;
    }
}

/// Marks a connection as closed, also if nobody listens any more.
struct Closing {
    history: History,
    place: usize,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.history.events().watched[self.place].is_open = false;
    }
}

async fn listen_to_customer(
    system: &System,
    history: &History,
    id: &str,
    carried: &mut Connection<ReplicaCustomer>,
) {
    let mut open: Option<Closing> = None;
    while let Some(arrived) = carried.recv().await {
        match arrived {
            Carried::Begun => {
                let mut events = history.events();
                events.watched.push(CustomerHeard {
                    id: id.to_owned(),
                    heard: Vec::new(),
                    since: system.world.elapsed(),
                    is_open: true,
                });
                let place = events.watched.len() - 1;
                open = Some(Closing {
                    history: history.clone(),
                    place,
                });
            }
            Carried::Told(Ok(customer)) => {
                let revision = customer.revision;
                system
                    .world
                    .note(|| format!("watcher of {id} hears {revision}"));
                if let Some(Closing { place, .. }) = open {
                    history.events().watched[place].heard.push(revision);
                }
            }
            Carried::Told(Err(_)) | Carried::BadCursor => return,
        }
    }
}
