//! A subscription to a customer. Each change is sent once, when the replica shows it.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tandem_event_path::data_keys::DataKey;
use tokio::time::timeout;

use super::{Updates, begun, change_of, next};
use crate::{
    live::log::Attention,
    replica::{ReplicaCustomer, contract},
    test_support::{LIMIT, LateKeys, MemoryLog, World, sealer},
};

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
