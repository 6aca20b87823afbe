//! An event that is published again is sent once, even if only the audit trail knows its first occurrence, and however
//! far behind the trail is.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::StreamExt;
use tokio::time::{sleep, timeout};

use super::{
    Updates, advanced, audit, begun, everything, fresh, next, order_of_age, seen, subscribe,
};
use crate::{
    domain::{Order, OrderStatus},
    live::{held_back::HELD_AT_MOST, item::OrderUpdate},
    test_support::{MemoryLog, World, event},
};

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

/// How long the audit trail is behind in these tests.
const LONG_BEHIND: Duration = Duration::from_secs(300);

/// Lets the feed pass the appended messages, so that a subscriber that resumes then has to read them.
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
    // Changes of other orders do not wait for the answer of the trail.
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
    // A relay that crashed publishes events again that the subscriber has heard, before those that it has not.
    let confirmed = advanced(&placed);
    for change in [&placed, &confirmed, &placed, &confirmed] {
        world.order_log.append(0, &event(change));
    }
    passed().await;
    // A subscriber that disconnects and resumes meanwhile has still not been sent the change.
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
