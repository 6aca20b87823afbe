#![allow(clippy::unwrap_used)]
//! Tests of the feed of a customer: its present state, the changes that passed before the replica showed them, and
//! later changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use tandem_event_path::store::DeadLetter;
use tokio::time::timeout;

use super::{
    FeedRequest, LiveError,
    feed_tests::request,
    item::CustomerItem,
    tests::{Updates, begun, change_of, error, next},
};
use crate::{
    replica::contract,
    test_support::{LIMIT, World},
};

async fn customers(world: &World, request: FeedRequest<'_>) -> Updates<CustomerItem> {
    let followed = world.backing.live.customers.follow("1", request).await;
    followed.unwrap().boxed()
}

fn customer_update(item: CustomerItem) -> (i64, Arc<str>, Arc<str>) {
    match item {
        CustomerItem::Update(update) => (update.customer.revision, update.cursor, update.previous),
        other => panic!("no update: {other:?}"),
    }
}

#[tokio::test]
async fn a_customer_and_what_happened_since_come_in_one() {
    let world = World::new().await;
    begun(&world).await;
    let states: Vec<_> = (1..=6)
        .map(|revision| contract::customer("1", revision))
        .collect();
    let append = |revision: usize| {
        world
            .customer_log
            .append(0, &change_of(&states[revision - 1]));
    };
    let mut of_nobody = customers(&world, request(None)).await;
    let CustomerItem::Snapshot(none) = next(&mut of_nobody).await else {
        panic!("no snapshot");
    };
    assert_eq!(none.customer, None);

    append(1);
    let take = async |revision: usize| {
        let states = vec![states[revision - 1].clone()];
        world.backing.replica.take(states).await.unwrap();
    };
    take(1).await;
    assert_eq!(customer_update(next(&mut of_nobody).await).0, 1);
    // The changes have passed in the log but are not in the replica yet. They are sent when they are.
    append(2);
    append(3);
    world
        .customer_log
        .append(1, &change_of(&contract::customer("2", 1)));
    let mut updates = customers(&world, request(None)).await;
    let CustomerItem::Snapshot(snapshot) = next(&mut updates).await else {
        panic!("no snapshot");
    };
    assert_eq!(snapshot.customer.unwrap().revision, 1);
    take(3).await;
    let (revision, second, previous) = customer_update(next(&mut updates).await);
    assert_eq!((revision, previous), (2, snapshot.cursor));
    let (revision, third, previous) = customer_update(next(&mut updates).await);
    assert_eq!((revision, &previous), (3, &second));
    append(3);
    append(4);
    take(4).await;
    assert_eq!(customer_update(next(&mut updates).await).0, 4);
    drop(updates);

    append(5);
    append(6);
    take(6).await;
    for (cursor, expected) in [(&second, vec![3, 4, 5, 6]), (&third, vec![4, 5, 6])] {
        let mut resumed = customers(&world, request(Some(cursor))).await;
        let mut held = cursor.clone();
        for revision in expected {
            let update = customer_update(next(&mut resumed).await);
            assert_eq!((update.0, &update.2), (revision, &held));
            held = update.1;
        }
        assert!(resumed.next().now_or_never().is_none());
    }
}

/// A customer whose second change has passed in the log and is not in the replica.
async fn behind_by_one(world: &World) {
    begun(world).await;
    let state = |revision| contract::customer("1", revision);
    world.customer_log.append(0, &change_of(&state(1)));
    world.backing.replica.take(vec![state(1)]).await.unwrap();
    let last = world.customer_log.append(0, &change_of(&state(2)));
    let mut positions = world.backing.live.customers.subscribers.positions();
    while positions.is_none_or(|it| it.get(&0).is_none_or(|next| *next <= last.offset)) {
        tokio::task::yield_now().await;
        positions = world.backing.live.customers.subscribers.positions();
    }
}

/// Records that the replica has the first message of a partition, as the service does.
async fn note_first(world: &World) {
    let noted = r#"{"begin":0,"last":{"offset":0,"fingerprint":"x"}}"#;
    let name = "log/accounts.customer.change/0";
    world.stores.own.registry.note(name, noted).await.unwrap();
}

async fn first_of(updates: &mut Updates<CustomerItem>) -> (Option<i64>, Arc<str>) {
    match next(updates).await {
        CustomerItem::Snapshot(first) => (first.customer.map(|it| it.revision), first.cursor),
        other => panic!("no snapshot: {other:?}"),
    }
}

#[tokio::test]
async fn a_snapshot_of_a_replica_that_is_far_behind_is_followed_by_all_that_has_passed() {
    let world = World::new().await;
    note_first(&world).await;
    behind_by_one(&world).await;
    // More changes of other customers than the feed remembers.
    for number in 0..11_000 {
        let other = contract::customer(&format!("other-{number}"), 1);
        world.customer_log.append(0, &change_of(&other));
    }
    let all = BTreeMap::from([(0, 11_002), (1, 0), (2, 0)]);
    timeout(LIMIT, async {
        let subscribers = &world.backing.live.customers.subscribers;
        while subscribers.positions().as_deref() != Some(&all) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let mut with_snapshot = customers(&world, request(None)).await;
    assert_eq!(first_of(&mut with_snapshot).await.0, Some(1));
    let mut without = customers(&world, FeedRequest::default()).await;
    let second = contract::customer("1", 2);
    world.backing.replica.take(vec![second]).await.unwrap();
    for updates in [&mut with_snapshot, &mut without] {
        assert_eq!(customer_update(next(updates).await).0, 2);
        assert!(updates.next().now_or_never().is_none());
    }
}

#[tokio::test]
async fn who_is_cut_off_behind_a_snapshot_is_told_what_the_replica_did_not_show_then() {
    let world = World::new().await;
    behind_by_one(&world).await;
    let mut cut_off = customers(&world, request(None)).await;
    let (revision, cursor) = first_of(&mut cut_off).await;
    assert_eq!(revision, Some(1));
    drop(cut_off);
    let mut resumed = customers(&world, request(Some(&cursor))).await;
    let second = contract::customer("1", 2);
    world.backing.replica.take(vec![second]).await.unwrap();
    let (revision, _, previous) = customer_update(next(&mut resumed).await);
    assert_eq!((revision, previous), (2, cursor));
    assert!(resumed.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_change_that_is_set_aside_is_told_when_it_is_taken_after_all() {
    let world = World::new().await;
    behind_by_one(&world).await;
    let messages = world.customer_log.messages();
    let second = messages.iter().find(|it| it.position.offset == 1).unwrap();
    let (name, now) = (crate::replica::projection::NAME, chrono::Utc::now());
    let letter = DeadLetter::new(name, second.clone(), "1".into(), "why".into(), now);
    let letters = &world.stores.own.dead_letters;
    letters.park(vec![letter.clone()]).await.unwrap();
    // Another instance that has not seen the change pass. Its replica has everything else.
    let noted = r#"{"begin":0,"last":{"offset":1,"fingerprint":"x"}}"#;
    let registry = &world.stores.own.registry;
    registry
        .note("log/accounts.customer.change/0", noted)
        .await
        .unwrap();
    let mut feed = world.backing.live.customers.clone();
    feed.recent = super::recent::Recent::default();
    let mut updates = feed.follow("1", request(None)).await.unwrap().boxed();
    assert_eq!(first_of(&mut updates).await.0, Some(1));
    assert!(updates.next().now_or_never().is_none());
    let second = contract::customer("1", 2);
    world.backing.replica.take(vec![second]).await.unwrap();
    assert!(letters.unpark(&letter.id()).await.unwrap());
    assert_eq!(customer_update(next(&mut updates).await).0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_customer_has_heartbeats() {
    let world = World::new().await;
    begun(&world).await;
    let every = FeedRequest {
        heartbeat: Some(Duration::from_secs(5)),
        ..FeedRequest::default()
    };
    let mut updates = customers(&world, every).await;
    let mut cursor = None;
    for _ in 0..3 {
        let CustomerItem::Heartbeat(heartbeat) = next(&mut updates).await else {
            panic!("no heartbeat");
        };
        if let Some(cursor) = cursor {
            assert_eq!(heartbeat.previous, cursor);
        }
        cursor = Some(heartbeat.cursor);
    }
}

#[tokio::test]
async fn a_cursor_of_another_feed_is_refused() {
    let world = World::new().await;
    begun(&world).await;
    let feed = &world.backing.live.customers;
    for text in ["", "nonsense", "e30", "eyIwIjowfQ"] {
        let refused = feed.follow("1", request(Some(text))).await;
        assert!(
            matches!(refused.err(), Some(LiveError::BadCursor(_))),
            "{text}"
        );
    }
    // `{"p":{"9":0},"r":1}`: a partition that the log does not have.
    let mut updates = customers(&world, request(Some("eyJwIjp7IjkiOjB9LCJyIjoxfQ"))).await;
    assert!(matches!(error(&mut updates).await, LiveError::BadCursor(_)));
}
