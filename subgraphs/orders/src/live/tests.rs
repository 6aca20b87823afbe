#![allow(clippy::unwrap_used)]
//! The feeds on logs in memory: each change once, in order, resumable, ended when too slow.

use std::{pin::Pin, time::Duration};

use chrono::{TimeDelta, Utc};
use futures::{FutureExt, Stream, StreamExt};
use tandem_event_path::data_keys::DataKey;
use tandem_model::event::CloudEvent;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Interest, LiveError,
    deduplication::{Occurrence, SeenRevisions},
    held_back::{HELD_AT_MOST, PREDECESSOR_WAIT},
    inbox::QUEUE,
    item::OrderUpdate,
    log::Attention,
    subscribers::{Channel, Subscribers},
};
use crate::{
    domain::{Order, OrderChangeEvent, OrderStatus, Placement},
    replica::{ReplicaCustomer, contract},
    test_support::{LIMIT, LateKeys, MemoryLog, World, event, item, sealer},
};

pub(super) type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, LiveError>> + Send>>;

/// An order made some time ago (in the future, if negative, so that it is surely newer than the feed's start).
pub(super) fn order_of_age(customer_id: &str, age: TimeDelta) -> Order {
    let placement = Placement {
        customer_id: customer_id.into(),
        items: vec![item("1", 1)],
        ship_to: None,
    };
    Order::place(
        uuid::Uuid::now_v7().to_string(),
        placement,
        Utc::now() - age,
    )
    .unwrap()
}

pub(super) fn fresh(customer_id: &str) -> Order {
    order_of_age(customer_id, TimeDelta::seconds(-60))
}

pub(super) fn advanced(order: &Order) -> Order {
    order
        .advance(order.status.next().unwrap(), None, Utc::now())
        .unwrap()
}

pub(super) async fn begun(world: &World) {
    timeout(LIMIT, world.backing.live.orders.begun())
        .await
        .unwrap();
    timeout(LIMIT, world.backing.live.customers.begun())
        .await
        .unwrap();
}

fn subscribe(world: &World, interest: Interest, after: Option<&str>) -> Updates<OrderUpdate> {
    world
        .backing
        .live
        .orders
        .subscribe(interest, after)
        .unwrap()
        .boxed()
}

pub(super) fn everything() -> Interest {
    Interest::default()
}

pub(super) async fn next<T>(updates: &mut Updates<T>) -> T {
    timeout(LIMIT, updates.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

pub(super) async fn error<T: std::fmt::Debug>(updates: &mut Updates<T>) -> LiveError {
    timeout(LIMIT, updates.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err()
}

fn seen(update: &OrderUpdate) -> (String, i64) {
    (update.order.id.clone(), update.order.revision)
}

/// Lets the audit projection take everything that is in the log.
pub(super) async fn audit(world: &World) {
    world.audit_everything().await;
}

#[tokio::test]
async fn every_change_comes_once_and_in_order() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let placed = fresh("1");
    let confirmed = advanced(&placed);
    let shipped = advanced(&confirmed);
    // A relay that crashed after the second one publishes from the first one on again.
    for change in [&placed, &confirmed, &placed, &confirmed, &shipped] {
        world.order_log.append(0, &event(change));
    }
    for revision in 1..=3 {
        assert_eq!(
            seen(&next(&mut updates).await),
            (placed.id.clone(), revision)
        );
    }
    assert!(updates.next().now_or_never().is_none());
}

#[tokio::test]
async fn only_what_is_wanted_comes() {
    let world = World::new().await;
    begun(&world).await;
    let (one, other) = (fresh("1"), fresh("2"));
    let of = |customer: Option<&str>, order: Option<&Order>| Interest {
        customer_id: customer.map(str::to_owned),
        order_id: order.map(|order| order.id.clone()),
    };
    let mut of_customer = subscribe(&world, of(Some("2"), None), None);
    let mut of_order = subscribe(&world, of(None, Some(&one)), None);
    let mut of_both = subscribe(&world, of(Some("2"), Some(&other)), None);
    let mut of_neither = subscribe(&world, of(Some("2"), Some(&one)), None);
    for change in [&one, &other, &advanced(&one)] {
        world.order_log.append(1, &event(change));
    }
    assert_eq!(seen(&next(&mut of_customer).await), (other.id.clone(), 1));
    assert_eq!(seen(&next(&mut of_order).await), (one.id.clone(), 1));
    assert_eq!(seen(&next(&mut of_order).await), (one.id.clone(), 2));
    assert_eq!(seen(&next(&mut of_both).await), (other.id.clone(), 1));
    assert!(of_neither.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_subscriber_resumes_behind_its_cursor_and_goes_over_to_live() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let (one, two) = (fresh("1"), fresh("2"));
    world.order_log.append(0, &event(&one));
    world.order_log.append(1, &event(&two));
    let first = next(&mut updates).await;
    next(&mut updates).await;
    drop(updates);
    // While nobody listens: further changes, and everything again after a crash.
    let (one_b, two_b) = (advanced(&one), advanced(&two));
    for (partition, change) in [(0, &one), (0, &one_b), (1, &two), (1, &two_b)] {
        world.order_log.append(partition, &event(change));
    }
    audit(&world).await;
    let mut resumed = subscribe(&world, everything(), Some(&first.cursor));
    let mut missed = Vec::new();
    for _ in 0..3 {
        missed.push(seen(&next(&mut resumed).await));
    }
    missed.sort();
    // Of the two first changes, the one behind the cursor; then both second ones.
    let behind = if first.order.id == one.id { &two } else { &one };
    let mut expected = vec![
        (behind.id.clone(), 1),
        (one.id.clone(), 2),
        (two.id.clone(), 2),
    ];
    expected.sort();
    assert_eq!(missed, expected);
    world.order_log.append(0, &event(&advanced(&one_b)));
    assert_eq!(seen(&next(&mut resumed).await), (one.id.clone(), 3));
    assert!(resumed.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_cursor_of_another_instance_that_is_ahead_repeats_nothing() {
    let log = MemoryLog::new(1);
    let (ahead, behind) = (World::on(log.clone()).await, World::on(log.clone()).await);
    begun(&ahead).await;
    begun(&behind).await;
    let mut updates = subscribe(&ahead, everything(), None);
    let changes: Vec<Order> = (0..50).map(|_| fresh("1")).collect();
    for change in &changes {
        log.append(0, &event(change));
    }
    let mut cursor = String::new();
    for change in &changes {
        let update = next(&mut updates).await;
        assert_eq!(update.order.id, change.id);
        cursor = update.cursor;
    }
    let mut elsewhere = subscribe(&behind, everything(), Some(&cursor));
    let last = fresh("1");
    log.append(0, &event(&last));
    audit(&behind).await;
    assert_eq!(seen(&next(&mut elsewhere).await), (last.id, 1));
}

#[tokio::test]
async fn resuming_under_traffic_leaves_no_gap_and_repeats_nothing() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    world.order_log.append(0, &event(&fresh("1")));
    let mut cursor = next(&mut updates).await.cursor;
    drop(updates);
    let log = world.order_log.clone();
    let traffic = tokio::spawn(async move {
        let mut expected = Vec::new();
        for n in 0..600 {
            let order = fresh("1");
            log.append(n % 3, &event(&order));
            if n % 5 == 0 {
                log.append(n % 3, &event(&order));
            }
            expected.push(order.id);
            tokio::task::yield_now().await;
        }
        expected
    });
    let auditing = async {
        tandem_backends::eventually("the audit trail holds all", async || {
            audit(&world).await;
            world.order_log.messages().len() >= 721
        })
        .await;
        audit(&world).await;
    };
    let listening = async {
        let mut received = Vec::new();
        while received.len() < 600 {
            let mut updates = subscribe(&world, everything(), Some(&cursor));
            for _ in 0..47.min(600 - received.len()) {
                let update = next(&mut updates).await;
                cursor = update.cursor;
                received.push(update.order.id.clone());
            }
        }
        received
    };
    let ((), mut received) = tokio::join!(auditing, listening);
    let mut expected = traffic.await.unwrap();
    expected.sort();
    received.sort();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn what_was_published_before_the_start_and_again_after_it_is_known_by_the_audit_trail() {
    let log = MemoryLog::new(1);
    let order = order_of_age("1", TimeDelta::seconds(30));
    log.append(0, &event(&order));
    let world = World::on(log).await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let second = order
        .advance(OrderStatus::Confirmed, None, Utc::now())
        .unwrap();
    world.order_log.append(0, &event(&order));
    world.order_log.append(0, &event(&second));
    audit(&world).await;
    assert_eq!(seen(&next(&mut updates).await), (order.id.clone(), 2));
}

/// How long the audit trail is behind in tests of that.
const LONG_BEHIND: Duration = Duration::from_secs(300);

/// Lets the feed pass what was appended: whoever resumes then has to read it.
async fn passed() {
    sleep(Duration::from_secs(1)).await;
}

async fn tells_nothing(updates: &mut Updates<OrderUpdate>) {
    let told = timeout(LONG_BEHIND, updates.next()).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_published_before_the_start_and_again_after_it_is_not_told_however_far_the_audit_trail_is_behind()
 {
    let log = MemoryLog::new(1);
    let order = order_of_age("1", TimeDelta::seconds(30));
    let second = order
        .advance(
            OrderStatus::Confirmed,
            None,
            Utc::now() - TimeDelta::seconds(20),
        )
        .unwrap();
    log.append(0, &event(&order));
    let world = World::on(log).await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    for change in [&order, &second, &order, &second] {
        world.order_log.append(0, &event(change));
    }
    // Nobody else waits for the word of the trail.
    for customer_id in ["2", "3"] {
        let other = fresh(customer_id);
        world.order_log.append(0, &event(&other));
        assert_eq!(seen(&next(&mut updates).await), (other.id, 1));
        tells_nothing(&mut updates).await;
    }
    audit(&world).await;
    assert_eq!(seen(&next(&mut updates).await), (order.id.clone(), 2));
    world.order_log.append(0, &event(&second));
    world.order_log.append(0, &event(&advanced(&second)));
    audit(&world).await;
    assert_eq!(seen(&next(&mut updates).await), (order.id, 3));
    tells_nothing(&mut updates).await;
}

#[tokio::test(start_paused = true)]
async fn who_resumes_is_told_nothing_twice_however_far_the_audit_trail_is_behind() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let placed = fresh("1");
    world.order_log.append(0, &event(&placed));
    let mut cursor = next(&mut updates).await.cursor;
    drop(updates);
    // A relay that crashed publishes again what the subscriber has heard, before what it has not.
    let confirmed = advanced(&placed);
    for change in [&placed, &confirmed, &placed, &confirmed] {
        world.order_log.append(0, &event(change));
    }
    passed().await;
    // Whoever breaks off and resumes meanwhile has still to be told.
    for _ in 0..2 {
        let mut resumed = subscribe(&world, everything(), Some(&cursor));
        tells_nothing(&mut resumed).await;
        let other = fresh("2");
        world.order_log.append(1, &event(&other));
        let told = next(&mut resumed).await;
        assert_eq!(seen(&told), (other.id.clone(), 1));
        cursor = told.cursor;
    }
    let mut resumed = subscribe(&world, everything(), Some(&cursor));
    tells_nothing(&mut resumed).await;
    audit(&world).await;
    let told = next(&mut resumed).await;
    assert_eq!(seen(&told), (placed.id.clone(), 2));
    tells_nothing(&mut resumed).await;
    let mut behind = subscribe(&world, everything(), Some(&told.cursor));
    world.order_log.append(0, &event(&advanced(&confirmed)));
    audit(&world).await;
    assert_eq!(seen(&next(&mut behind).await), (placed.id, 3));
}

#[tokio::test(start_paused = true)]
async fn more_than_a_cursor_can_name_waits_for_the_audit_trail_and_is_told_once() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let first = fresh("1");
    world.order_log.append(0, &event(&first));
    let cursor = next(&mut updates).await.cursor;
    drop(updates);
    let orders: Vec<Order> = (0..HELD_AT_MOST + 700).map(|_| fresh("1")).collect();
    for order in &orders {
        world.order_log.append(0, &event(order));
        world.order_log.append(0, &event(&first));
    }
    passed().await;
    let mut resumed = subscribe(&world, everything(), Some(&cursor));
    tells_nothing(&mut resumed).await;
    audit(&world).await;
    let mut told = Vec::new();
    for _ in &orders {
        told.push(next(&mut resumed).await.order.id.clone());
    }
    told.sort();
    let mut expected: Vec<String> = orders.into_iter().map(|order| order.id).collect();
    expected.sort();
    assert_eq!(told, expected);
    tells_nothing(&mut resumed).await;
}

#[tokio::test]
async fn who_subscribes_while_the_log_is_away_hears_what_was_appended_meanwhile() {
    let log = MemoryLog::new(2);
    log.set_away(true);
    let old = order_of_age("1", TimeDelta::hours(1));
    log.append(0, &event(&old));
    let world = World::on(log.clone()).await;
    let mut updates = subscribe(&world, everything(), None);
    assert!(updates.next().now_or_never().is_none());
    let placed = order_of_age("1", TimeDelta::zero());
    log.append(0, &event(&placed));
    audit(&world).await;
    log.set_away(false);
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 1));
    log.append(0, &event(&advanced(&placed)));
    assert_eq!(seen(&next(&mut updates).await), (placed.id, 2));
}

#[tokio::test]
async fn a_slow_subscriber_is_told_where_to_resume() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let last = QUEUE + 50;
    for n in 0..last {
        let order = fresh(&n.to_string());
        world.order_log.append(0, &event(&order));
    }
    // Somebody who waits for one order alone, and is served, shows that the feed has passed all the others.
    let marker = fresh("marker");
    let interest = Interest {
        order_id: Some(marker.id.clone()),
        customer_id: None,
    };
    let mut witness = subscribe(&world, interest, None);
    world.order_log.append(0, &event(&marker));
    assert_eq!(next(&mut witness).await.order.id, marker.id);
    for n in 0..QUEUE {
        assert_eq!(next(&mut updates).await.order.customer_id, n.to_string());
    }
    let LiveError::Lagged {
        cursor: Some(cursor),
    } = error(&mut updates).await
    else {
        panic!("not told to have lagged");
    };
    assert!(updates.next().await.is_none());
    audit(&world).await;
    let mut resumed = subscribe(&world, everything(), Some(&cursor));
    for n in QUEUE..last {
        assert_eq!(next(&mut resumed).await.order.customer_id, n.to_string());
    }
    assert_eq!(next(&mut resumed).await.order.id, marker.id);
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let world = World::new().await;
    begun(&world).await;
    let feed = &world.backing.live.orders;
    for text in ["", "nonsense", "e30", "W10", "eyIwIjotMX0"] {
        assert!(
            matches!(
                feed.subscribe(everything(), Some(text)),
                Err(LiveError::BadCursor(_))
            ),
            "{text}"
        );
    }
    // {"0":5} of a log that is empty, {"9":0} of one with three partitions.
    for text in ["eyIwIjo1fQ", "eyI5IjowfQ"] {
        let mut updates = subscribe(&world, everything(), Some(text));
        assert!(
            matches!(error(&mut updates).await, LiveError::BadCursor(_)),
            "{text}"
        );
        assert!(updates.next().await.is_none());
    }
}

#[tokio::test]
async fn subscriptions_end_with_the_service() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let mut customers = world.backing.live.customers.subscribe("1").await.boxed();
    world.shutdown.request("test");
    assert!(timeout(LIMIT, updates.next()).await.unwrap().is_none());
    assert!(timeout(LIMIT, customers.next()).await.unwrap().is_none());
    let mut late = subscribe(&world, everything(), None);
    assert!(timeout(LIMIT, late.next()).await.unwrap().is_none());
}

pub(super) fn change_of(customer: &ReplicaCustomer) -> CloudEvent {
    let mut body = serde_json::to_value(customer).unwrap();
    body["changeType"] = "UPDATED".into();
    body["changedBy"] = "anonymous".into();
    body["createdAt"] = body["changedAt"].clone();
    body["updatedAt"] = body["changedAt"].clone();
    CloudEvent {
        id: uuid::Uuid::now_v7(),
        source: "/accounts".into(),
        kind: "CustomerChangeEvent".into(),
        subject: customer.id.clone(),
        time: Utc::now(),
        data_schema: "urn:tandem:schema:customer-change-event:v1".into(),
        traceparent: None,
        data: body.to_string(),
    }
}

#[tokio::test]
async fn a_customers_change_comes_when_the_replica_shows_it_and_once() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates: Updates<ReplicaCustomer> =
        world.backing.live.customers.subscribe("1").await.boxed();
    let (first, second) = (contract::customer("1", 1), contract::customer("1", 2));
    for change in [&first, &first, &contract::customer("2", 7), &second, &first] {
        world.customer_log.append(0, &change_of(change));
    }
    assert!(
        timeout(Duration::from_millis(100), updates.next())
            .await
            .is_err()
    );
    world
        .backing
        .replica
        .take(vec![first.clone()])
        .await
        .unwrap();
    assert_eq!(next(&mut updates).await.revision, 1);
    world.backing.replica.take(vec![second]).await.unwrap();
    assert_eq!(next(&mut updates).await.revision, 2);
    assert!(updates.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn customers_that_nobody_listens_to_are_read_patiently() {
    let world = World::new().await;
    begun(&world).await;
    let mut attention = world.customer_log.attention();
    let mut turns_to = async |wanted| {
        timeout(LIMIT, attention.wait_for(|now| *now == wanted))
            .await
            .unwrap()
            .unwrap();
    };
    let customers = &world.backing.live.customers;
    turns_to(Attention::Patient).await;
    for revision in 1..=2 {
        let change = contract::customer("1", revision);
        let mut updates: Updates<ReplicaCustomer> = customers.subscribe("1").await.boxed();
        turns_to(Attention::Prompt).await;
        world.customer_log.append(0, &change_of(&change));
        world.backing.replica.take(vec![change]).await.unwrap();
        assert_eq!(next(&mut updates).await.revision, revision);
        drop(updates);
        turns_to(Attention::Patient).await;
    }
}

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

/// Changes of an order of this customer, sealed: each with its order.
fn sealed(key: &DataKey, orders: &[Order]) -> Vec<CloudEvent> {
    let sealed = |order: &Order| {
        let told = OrderChangeEvent::of(order, "test").seal(key).unwrap();
        told.into_cloud_event(uuid::Uuid::now_v7(), None).unwrap()
    };
    orders.iter().map(sealed).collect()
}

/// Tells another order in its place, and so that everything before it was passed.
async fn tells(world: &World, updates: &mut Updates<OrderUpdate>) -> OrderUpdate {
    let order = fresh("other");
    world.order_log.append(0, &event(&order));
    audit(world).await;
    let update = next(updates).await;
    assert_eq!(update.order.id, order.id);
    update
}

#[tokio::test]
async fn a_change_whose_key_comes_late_is_told_then_and_holds_back_its_own_order_alone() {
    let keys = LateKeys::default();
    let world = World::with(MemoryLog::new(2), keys.opener()).await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let (key, wrapped) = DataKey::make(&sealer(), "late");
    let placed = fresh("late");
    let changes = [placed.clone(), advanced(&placed)];
    for change in sealed(&key, &changes) {
        world.order_log.append(1, &change);
    }
    tells(&world, &mut updates).await;
    keys.come("late", &wrapped);
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 1));
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 2));
    world.order_log.append(1, &event(&advanced(&changes[1])));
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 3));
    tells(&world, &mut updates).await;
}

#[tokio::test]
async fn who_resumes_is_told_what_was_held_back_before_the_cursor_and_once() {
    let keys = LateKeys::default();
    let world = World::with(MemoryLog::new(2), keys.opener()).await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let (key, wrapped) = DataKey::make(&sealer(), "late");
    let placed = fresh("late");
    world
        .order_log
        .append(0, &sealed(&key, std::slice::from_ref(&placed))[0]);
    let cursor = tells(&world, &mut updates).await.cursor;
    drop(updates);
    audit(&world).await;
    // Resumed while the key is still not there, then again with the key there.
    let mut resumed = subscribe(&world, everything(), Some(&cursor));
    let later = tells(&world, &mut resumed).await.cursor;
    audit(&world).await;
    keys.come("late", &wrapped);
    let told = next(&mut resumed).await;
    assert_eq!(seen(&told), (placed.id.clone(), 1));
    tells(&world, &mut resumed).await;
    audit(&world).await;
    let mut again = subscribe(&world, everything(), Some(&later));
    assert_eq!(seen(&next(&mut again).await), (placed.id.clone(), 1));
    // Who was told resumes behind it.
    let mut behind = subscribe(&world, everything(), Some(&told.cursor));
    assert_eq!(next(&mut behind).await.order.customer_id, "other");
}

#[tokio::test]
async fn a_change_that_is_read_after_a_newer_one_of_its_order_is_told_and_in_order() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let placed = fresh("1");
    let confirmed = advanced(&placed);
    let shipped = advanced(&confirmed);
    world.order_log.append(1, &event(&placed));
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 1));
    // As when the order went over to a partition that was added, and the old one is read later.
    world.order_log.append(2, &event(&shipped));
    tells(&world, &mut updates).await;
    world.order_log.append(1, &event(&confirmed));
    audit(&world).await;
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 2));
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 3));
    for repeated in [&placed, &confirmed, &shipped] {
        world.order_log.append(1, &event(repeated));
    }
    tells(&world, &mut updates).await;
}

#[tokio::test]
async fn who_resumes_is_told_in_order_what_lies_in_two_partitions() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let cursor = tells(&world, &mut updates).await.cursor;
    let (placed, other) = (fresh("1"), fresh("2"));
    let changes = [&placed, &advanced(&placed), &advanced(&advanced(&placed))];
    // The reader takes the first partition first.
    for (partition, change) in [
        (2, changes[0]),
        (1, changes[1]),
        (0, changes[2]),
        (0, &other),
    ] {
        world.order_log.append(partition, &event(change));
    }
    audit(&world).await;
    let mut resumed = subscribe(&world, everything(), Some(&cursor));
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(seen(&next(&mut resumed).await));
    }
    let of_placed: Vec<i64> = told
        .iter()
        .filter(|(id, _)| *id == placed.id)
        .map(|(_, revision)| *revision)
        .collect();
    assert_eq!(of_placed, [1, 2, 3]);
    assert!(told.contains(&(other.id.clone(), 1)));
    tells(&world, &mut resumed).await;
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_change_that_never_comes_is_told_after_a_while() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let placed = fresh("1");
    world.order_log.append(0, &event(&placed));
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 1));
    let shipped = advanced(&advanced(&placed));
    world.order_log.append(0, &event(&shipped));
    let begun = Instant::now();
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 3));
    assert!(begun.elapsed() >= PREDECESSOR_WAIT);
}

#[tokio::test]
async fn a_customers_change_whose_key_comes_late_is_told_when_the_replica_shows_it() {
    let keys = LateKeys::default();
    let world = World::with(MemoryLog::new(1), keys.opener()).await;
    begun(&world).await;
    let live = &world.backing.live.customers;
    let mut updates: Updates<ReplicaCustomer> = live.subscribe("1").await.boxed();
    let mut others: Updates<ReplicaCustomer> = live.subscribe("2").await.boxed();
    let (key, wrapped) = DataKey::make(&sealer(), "1");
    let [first, second] = [1, 2].map(|revision| contract::customer("1", revision));
    for change in [&first, &second] {
        let mut told = change_of(change);
        let mut body: serde_json::Value = serde_json::from_str(&told.data).unwrap();
        let person = serde_json::json!({
            "name": body["name"].take(), "contact": body["contact"].take(), "addresses": body["addresses"].take(),
        });
        let place = format!("customer/1/{}", change.revision);
        body["sealed"] = key.seal(person.to_string().as_bytes(), &place).into();
        told.data = body.to_string();
        world.customer_log.append(0, &told);
    }
    let other = contract::customer("2", 1);
    world.customer_log.append(0, &change_of(&other));
    world.backing.replica.take(vec![other]).await.unwrap();
    assert_eq!(next(&mut others).await.revision, 1);
    keys.come("1", &wrapped);
    world
        .backing
        .replica
        .take(vec![first, second])
        .await
        .unwrap();
    assert_eq!(next(&mut updates).await.revision, 1);
    assert_eq!(next(&mut updates).await.revision, 2);
    assert!(updates.next().now_or_never().is_none());
}

#[test]
fn what_memory_forgot_is_asked_for_and_not_taken_for_new() {
    let began = Utc::now() - TimeDelta::hours(1);
    let mut memory = SeenRevisions::with_capacity(2, began);
    let orders: Vec<OrderChangeEvent> = (0..6)
        .map(|n| OrderChangeEvent::of(&order_of_age("1", TimeDelta::seconds(-n)), "test"))
        .collect();
    for event in &orders {
        assert_eq!(memory.classify(event), Occurrence::New);
        memory.seen(event);
        assert_eq!(memory.classify(event), Occurrence::Repeated);
    }
    assert_eq!(memory.classify(&orders[5]), Occurrence::Repeated);
    assert_eq!(memory.classify(&orders[0]), Occurrence::Unknown);
}
