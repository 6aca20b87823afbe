//! A change that cannot be sent yet, because its key or its predecessor is missing, holds back only its own order.

use tandem_event_path::data_keys::DataKey;
use tandem_model::event::CloudEvent;
use tokio::time::Instant;

use super::{Updates, advanced, audit, begun, everything, fresh, next, seen, subscribe};
use crate::{
    domain::{Order, OrderChangeEvent},
    live::{held_back::PREDECESSOR_WAIT, item::OrderUpdate},
    test_support::{LateKeys, MemoryLog, World, event, sealer},
};

/// The sealed change events of these orders.
fn sealed(key: &DataKey, orders: &[Order]) -> Vec<CloudEvent> {
    let sealed = |order: &Order| {
        let told = OrderChangeEvent::of(order, "test").seal(key).unwrap();
        told.into_cloud_event(uuid::Uuid::now_v7(), None).unwrap()
    };
    orders.iter().map(sealed).collect()
}

/// Publishes a change of another order and waits for it. This shows that everything before it has passed.
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
    // Resumes while the key is still missing, and then again when the key is there.
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
    // A subscriber that was sent the change resumes after it.
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
    // As if the order moved to an added partition, and the old partition is read later.
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
    // The reader reads the first partition first.
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
