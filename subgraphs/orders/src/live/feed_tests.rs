#![allow(clippy::unwrap_used)]
//! Tests of feeds whose subscribers can detect a loss: a snapshot and later changes, linked cursors, heartbeats.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};

use super::{
    FeedRequest, Interest,
    cursor::MOST_AHEAD,
    item::OrderItem,
    tests::{Updates, advanced, audit, begun, everything, fresh, next},
};
use crate::{
    domain::{Order, OrderStatus},
    test_support::{LIMIT, World, event},
};

type Seen = (String, i64);

/// A client of the feed that checks the rule: if `previous` is not the cursor that it holds, it has missed something.
struct Follower {
    items: Updates<OrderItem>,
    cursor: Option<Arc<str>>,
}

pub(super) fn request(after: Option<&str>) -> FeedRequest<'_> {
    FeedRequest {
        after,
        snapshot: true,
        heartbeat: None,
    }
}

impl Follower {
    fn new(world: &World, interest: Interest, request: FeedRequest<'_>) -> Self {
        let items = world.backing.live.orders.follow(interest, request).unwrap();
        Self {
            items: items.boxed(),
            cursor: request.after.map(Arc::from),
        }
    }

    async fn next(&mut self) -> OrderItem {
        let item = next(&mut self.items).await;
        let (cursor, previous) = match &item {
            OrderItem::Snapshot(page) => (&page.cursor, &page.previous),
            OrderItem::Update(update) => (&update.cursor, &update.previous),
            OrderItem::Heartbeat(heartbeat) => (&heartbeat.cursor, &heartbeat.previous),
        };
        if let Some(held) = &self.cursor {
            assert_eq!(previous, held, "something was missed before {item:?}");
        }
        self.cursor = Some(cursor.clone());
        item
    }

    /// The revisions of the orders in the snapshot, by id, up to its last page.
    async fn snapshot(&mut self) -> BTreeMap<String, i64> {
        let mut orders = BTreeMap::new();
        loop {
            let OrderItem::Snapshot(page) = self.next().await else {
                panic!("no page of the snapshot");
            };
            for order in page.orders {
                assert_eq!(orders.insert(order.id.clone(), order.revision), None);
            }
            if page.complete {
                return orders;
            }
        }
    }

    async fn update(&mut self) -> Seen {
        match self.next().await {
            OrderItem::Update(update) => (update.order.id.clone(), update.order.revision),
            other => panic!("no update: {other:?}"),
        }
    }

    fn is_quiet(&mut self) -> bool {
        self.items.next().now_or_never().is_none()
    }
}

fn of_customer(id: &str) -> Interest {
    Interest {
        customer_id: Some(id.to_owned()),
        order_id: None,
    }
}

/// Advances an order in the store only. Its event is not published.
async fn advance(world: &World, order: &Order) -> Order {
    let to = order.status.next().unwrap();
    let origin = crate::commands::Origin {
        changed_by: "test".into(),
        traceparent: None,
    };
    let advanced = world.backing.commands.advance(&order.id, to, None, &origin);
    advanced.await.unwrap()
}

fn publish(world: &World, order: &Order) {
    let partition = i32::from(order.id.as_bytes()[35] % 3);
    world.order_log.append(partition, &event(order));
}

#[tokio::test]
async fn a_snapshot_and_what_happened_since_leave_no_gap_and_repeat_nothing() {
    let world = World::new().await;
    world.customer("1").await;
    begun(&world).await;
    let known = world.place("1", "1").await;
    publish(&world, &known);
    let waiting = world.place("1", "2").await;
    let moved = advance(&world, &known).await;
    audit(&world).await;

    let mut follower = Follower::new(&world, of_customer("1"), request(None));
    let expected = BTreeMap::from([(known.id.clone(), 2), (waiting.id.clone(), 1)]);
    assert_eq!(follower.snapshot().await, expected);
    // The snapshot was ahead of the log by these changes. They are published now and are not sent again. Later changes
    // are sent.
    for order in [&waiting, &moved] {
        publish(&world, order);
    }
    let confirmed = advance(&world, &waiting).await;
    publish(&world, &confirmed);
    audit(&world).await;
    assert_eq!(follower.update().await, (waiting.id.clone(), 2));
    let shipped = advance(&world, &moved).await;
    publish(&world, &shipped);
    audit(&world).await;
    assert_eq!(follower.update().await, (known.id.clone(), 3));
    assert!(follower.is_quiet());
}

#[tokio::test]
async fn one_order_or_none_is_a_snapshot_too() {
    let world = World::new().await;
    world.customer("1").await;
    begun(&world).await;
    let mut of_nobody = Follower::new(&world, of_customer("2"), request(None));
    assert_eq!(of_nobody.snapshot().await, BTreeMap::new());
    let order = world.place("1", "1").await;
    for (customer, count) in [(None, 1), (Some("1"), 1), (Some("2"), 0)] {
        let interest = Interest {
            customer_id: customer.map(str::to_owned),
            order_id: Some(order.id.clone()),
        };
        let mut of_one = Follower::new(&world, interest, request(None));
        assert_eq!(of_one.snapshot().await.len(), count, "{customer:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_was_cut_off_goes_on_where_it_was() {
    let world = World::new().await;
    world.customer("1").await;
    begun(&world).await;
    let mut orders = Vec::new();
    for _ in 0..250 {
        let order = world.place("1", "1").await;
        publish(&world, &order);
        orders.push(order);
    }
    audit(&world).await;
    let mut follower = Follower::new(&world, of_customer("1"), request(None));
    let OrderItem::Snapshot(first) = follower.next().await else {
        panic!("no page");
    };
    assert_eq!((first.orders.len(), first.complete), (100, false));
    // A change of an order that was sent, and of one that was not.
    for index in [0, 200] {
        let order = advance(&world, &orders[index]).await;
        publish(&world, &order);
    }
    audit(&world).await;
    let mut again = Follower::new(&world, of_customer("1"), request(Some(&first.cursor)));
    let rest = again.snapshot().await;
    assert_eq!(rest.len(), 150);
    assert!(
        first
            .orders
            .iter()
            .all(|order| !rest.contains_key(&order.id))
    );
    assert_eq!(rest[&orders[200].id], 2);
    assert_eq!(again.update().await, (orders[0].id.clone(), 2));
    assert!(again.is_quiet());
    // At the end of the snapshot, the snapshot does not begin again.
    let cursor = again.cursor.clone().unwrap();
    let mut behind = Follower::new(&world, of_customer("1"), request(Some(&cursor)));
    let next = advance(&world, &orders[1]).await;
    publish(&world, &next);
    audit(&world).await;
    assert_eq!(behind.update().await, (orders[1].id.clone(), 2));
}

#[tokio::test]
async fn who_resumes_right_behind_a_snapshot_hears_nothing_that_was_in_it() {
    let world = World::new().await;
    world.customer("1").await;
    begun(&world).await;
    for count in [3, MOST_AHEAD + 1] {
        let mut waiting = Vec::new();
        for _ in 0..count {
            waiting.push(world.place("1", "1").await);
        }
        let mut follower = Follower::new(&world, of_customer("1"), request(None));
        let snapshot = follower.snapshot().await;
        let cursor = follower.cursor.clone().unwrap();
        for order in &waiting {
            publish(&world, order);
        }
        audit(&world).await;
        let mut again = Follower::new(&world, of_customer("1"), request(Some(&cursor)));
        if count > MOST_AHEAD {
            // There are more orders than a cursor can name, so the snapshot is sent again.
            assert_eq!(again.snapshot().await, snapshot);
        }
        let last = world.place("1", "1").await;
        publish(&world, &last);
        audit(&world).await;
        assert_eq!(again.update().await, (last.id, 1));
    }
}

#[tokio::test]
async fn snapshots_under_traffic_and_resumed_leave_no_gap_and_repeat_nothing() {
    let world = World::new().await;
    world.customer("1").await;
    begun(&world).await;
    let mut orders = Vec::new();
    for _ in 0..120 {
        let order = world.place("1", "1").await;
        publish(&world, &order);
        orders.push(order);
    }
    audit(&world).await;
    let traffic = async {
        for order in &orders {
            let mut order = order.clone();
            while order.status != OrderStatus::Delivered {
                order = advance(&world, &order).await;
                publish(&world, &order);
            }
            audit(&world).await;
        }
    };
    let following = async {
        let mut follower = Follower::new(&world, of_customer("1"), request(None));
        let mut held = BTreeMap::new();
        let mut items = 0;
        while held.len() < 120 || held.values().any(|revision| *revision < 4) {
            match follower.next().await {
                OrderItem::Snapshot(page) => {
                    for order in page.orders {
                        assert_eq!(held.insert(order.id.clone(), order.revision), None);
                    }
                }
                OrderItem::Update(update) => {
                    let before = held.insert(update.order.id.clone(), update.order.revision);
                    if let Some(before) = before {
                        assert_eq!(before + 1, update.order.revision);
                    }
                }
                OrderItem::Heartbeat(_) => {}
            }
            items += 1;
            if items % 23 == 0 {
                let cursor = follower.cursor.clone().unwrap();
                follower = Follower::new(&world, of_customer("1"), request(Some(&cursor)));
            }
        }
    };
    timeout(LIMIT * 3, async { tokio::join!(traffic, following) })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_a_heartbeat_moves_the_cursor_on() {
    let world = World::new().await;
    begun(&world).await;
    let every = Duration::from_secs(15);
    let request = |after| FeedRequest {
        after,
        snapshot: false,
        heartbeat: Some(every),
    };
    let mut follower = Follower::new(&world, of_customer("1"), request(None));
    let begin = tokio::time::Instant::now();
    let OrderItem::Heartbeat(first) = follower.next().await else {
        panic!("no heartbeat");
    };
    assert_eq!(begin.elapsed().as_secs(), every.as_secs());
    assert_eq!(first.previous, first.cursor);
    // Changes of other customers' orders are not sent, but the cursor moves past them.
    for _ in 0..10 {
        publish(&world, &fresh("2"));
    }
    sleep(Duration::from_secs(1)).await;
    let OrderItem::Heartbeat(second) = follower.next().await else {
        panic!("no heartbeat");
    };
    assert_ne!(second.cursor, first.cursor);
    let order = fresh("1");
    publish(&world, &order);
    assert_eq!(follower.update().await, (order.id.clone(), 1));
    let mut again = Follower::new(&world, of_customer("1"), request(Some(&second.cursor)));
    audit(&world).await;
    assert_eq!(again.update().await, (order.id, 1));
}

#[tokio::test]
async fn an_update_tells_the_cursor_before_it() {
    let world = World::new().await;
    begun(&world).await;
    let plain = FeedRequest::default();
    let mut follower = Follower::new(&world, everything(), plain);
    let (one, two) = (fresh("1"), fresh("2"));
    publish(&world, &one);
    publish(&world, &two);
    follower.next().await;
    let cursor = follower.cursor.clone().unwrap();
    follower.next().await;
    audit(&world).await;
    let after = FeedRequest {
        after: Some(&cursor),
        ..plain
    };
    let mut resumed = Follower::new(&world, everything(), after);
    resumed.next().await;
    publish(&world, &advanced(&one));
    assert_eq!(resumed.update().await, (one.id, 2));
}
