#![allow(clippy::unwrap_used)]
//! The replica on the embedded store: its contract, its reading of events, and those who wait for it.

use std::{sync::Arc, time::Duration};

use tandem_kit::{
    consumer::Projection,
    data_keys::DataKey,
    event_contract,
    kafka::message::{Message, Position},
    store::embedded::{Codec, EmbeddedStore},
};

use super::{
    Replica, Waited, contract, embedded::EmbeddedReplica, event, projection::ReplicaProjection,
    waiting::Waiting,
};

async fn replica() -> (tempfile::TempDir, Replica) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("orders.redb"), Codec::plain()).unwrap();
    let replica = EmbeddedReplica::open(store).await.unwrap();
    (folder, Replica::new(Arc::new(replica)))
}

/// A customer's change as accounts sends it, with fields that orders does not know.
fn message(id: &str, revision: i64) -> Message {
    let body = serde_json::json!({
        "id": id,
        "name": {"title": "Mr.", "firstName": format!("First{revision}"), "middleName": null, "lastName": "Last", "suffix": null},
        "contact": {"primaryPhone": "1", "secondaryPhone": null, "email": "[email protected]"},
        "addresses": [{"type": "SHIPPING", "description": null, "address1": "1 Road", "address2": null, "city": "C", "state": "S", "postalCode": "1", "planet": "Earth"}],
        "creditCards": [{"type": "PRIMARY", "sealedNumber": "…"}],
        "revision": revision,
        "changeType": "UPDATED",
        "changedAt": "2026-11-23T10:00:00.123Z",
        "changedBy": "anonymous",
        "loyalty": 7
    });
    let text = |text: &str| text.as_bytes().to_vec();
    Message {
        topic: event::TOPIC.into(),
        position: Position {
            partition: 0,
            offset: revision,
        },
        key: Some(id.into()),
        headers: vec![
            ("ce_specversion".into(), text("1.0")),
            ("ce_id".into(), text("0190f3b2-7c1e-7a00-8000-000000000001")),
            ("ce_source".into(), text("/accounts")),
            ("ce_type".into(), text("CustomerChangeEvent")),
            ("ce_subject".into(), text(id)),
            ("ce_time".into(), text("2026-11-23T10:00:00.123Z")),
            (
                "ce_dataschema".into(),
                text("urn:tandem:schema:customer-change-event:v1"),
            ),
        ],
        payload: Some(body.to_string().into_bytes()),
    }
}

fn with_body(mut message: Message, change: impl Fn(&mut serde_json::Value)) -> Message {
    let mut body = serde_json::from_slice(message.payload.as_deref().unwrap()).unwrap();
    change(&mut body);
    message.payload = Some(body.to_string().into_bytes());
    message
}

#[tokio::test]
async fn the_embedded_replica_keeps_the_contract() {
    let (_folder, replica) = replica().await;
    contract::run(Arc::clone(replica.store())).await;
}

#[tokio::test]
async fn several_revisions_in_a_batch_collapse_to_the_newest() {
    let world = crate::test_support::World::new().await;
    let replica = world.backing.replica.clone();
    let projection = ReplicaProjection::new(
        replica.clone(),
        crate::test_support::opener(),
        crate::erasure::Forgetting::new(Arc::clone(&world.stores.own.aggregates)),
    );
    let items: Vec<_> = [1, 3, 2]
        .into_iter()
        .map(|revision| {
            let message = message("1", revision);
            (message.position, projection.decode(&message).unwrap())
        })
        .collect();
    projection.apply(items.clone()).await.unwrap();
    projection.apply(items).await.unwrap();
    let held = replica.get("1").await.unwrap().unwrap();
    assert_eq!(
        (held.revision, held.name.first_name.as_str()),
        (3, "First3")
    );
}

#[test]
fn a_message_that_breaks_a_rule_is_refused_with_the_reason() {
    let reason = |message: Message| event::read(&message).unwrap_err().reason;
    assert!(event::read(&message("1", 1)).is_ok());
    assert!(reason(message("1", 0)).contains("revision is 0"));
    let mut other_key = message("1", 1);
    other_key.key = Some("2".into());
    assert!(reason(other_key).contains("key"));
    let mut no_key = message("1", 1);
    no_key.key = None;
    assert!(reason(no_key).contains("key"));
    let mut other_kind = message("1", 1);
    other_kind.headers[3].1 = b"OrderChangeEvent".to_vec();
    assert!(reason(other_kind).contains("ce_type is OrderChangeEvent"));
    let no_id = with_body(message("1", 1), |body| {
        body.as_object_mut().unwrap().remove("id");
    });
    assert!(reason(no_id).contains("missing field `id`"));
    let mut tombstone = message("1", 1);
    tombstone.payload = None;
    assert!(reason(tombstone).contains("body is missing"));
    let mut garbage = message("1", 1);
    garbage.payload = Some(b"{".to_vec());
    assert!(reason(garbage).contains("not a customer change"));
}

#[test]
fn every_version_ever_published_is_read() {
    let read = |name: &str, message: &Message| {
        let read = event::read(message).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        let mut read = serde_json::to_value(read.into_customer(None).unwrap()).unwrap();
        // When it was read here is not the event's.
        read.as_object_mut().unwrap().remove("replicatedAt");
        read
    };
    for sample in event_contract::samples("customer-change-event") {
        let name = sample.name.as_str();
        assert_eq!(
            &read(name, &sample.message),
            sample.expected("orders"),
            "{name}"
        );
        // What a later version adds is ignored.
        let more = sample.with_body(|body| {
            body["loyalty"] = serde_json::json!({"points": 7});
            if body["name"].is_object() {
                body["name"]["nickname"] = "J".into();
            }
        });
        assert_eq!(&read(name, &more), sample.expected("orders"), "{name}");
    }
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_the_write() {
    let (_folder, replica) = replica().await;
    let waiting = {
        let replica = replica.clone();
        tokio::spawn(async move {
            replica
                .wait_for_revision("1", 2, Duration::from_secs(20))
                .await
        })
    };
    for revision in 1..=2 {
        replica
            .take(vec![contract::customer("1", revision)])
            .await
            .unwrap();
    }
    let waited = waiting.await.unwrap().unwrap();
    assert!(matches!(waited, Waited::Arrived(customer) if customer.revision == 2));
    assert_eq!(replica.waiting.customers(), 0);
}

#[tokio::test]
async fn who_waits_is_given_the_newest_that_was_written() {
    let waiting = Arc::new(Waiting::default());
    let mut waiter = waiting.join("1");
    for revision in [1, 3, 2] {
        waiting.arrived(&contract::customer("1", revision));
    }
    waiting.arrived(&contract::customer("2", 4));
    let arrived = waiter.arrival_of(2).await.unwrap();
    assert_eq!((arrived.id.as_str(), arrived.revision), ("1", 3));
}

#[tokio::test]
async fn what_another_instance_wrote_is_found_by_looking() {
    let (_folder, replica) = replica().await;
    let elsewhere = Replica::new(Arc::clone(replica.store()));
    let waiting = {
        let replica = replica.clone();
        tokio::spawn(async move {
            replica
                .wait_for_revision("1", 1, Duration::from_secs(20))
                .await
        })
    };
    elsewhere
        .take(vec![contract::customer("1", 1)])
        .await
        .unwrap();
    assert!(matches!(
        waiting.await.unwrap().unwrap(),
        Waited::Arrived(_)
    ));
}

#[tokio::test]
async fn waiting_ends_with_what_the_replica_holds() {
    let (_folder, replica) = replica().await;
    let short = Duration::from_millis(30);
    assert_eq!(
        replica.wait_for_revision("1", 1, short).await.unwrap(),
        Waited::Behind(None)
    );
    replica
        .take(vec![contract::customer("1", 4)])
        .await
        .unwrap();
    assert_eq!(
        replica.wait_for_revision("1", 5, short).await.unwrap(),
        Waited::Behind(Some(4))
    );
    assert_eq!(replica.waiting.customers(), 0);
}

/// The same message with the person sealed, as accounts sends it, and the customer's key.
fn sealed(id: &str, revision: i64) -> (Message, (DataKey, String)) {
    let service = crate::test_support::sealer();
    let (key, wrapped) = DataKey::make(&service, id);
    let message = with_body(message(id, revision), |body| {
        let body = body.as_object_mut().unwrap();
        let person: serde_json::Map<String, serde_json::Value> =
            ["name", "contact", "addresses", "creditCards"]
                .into_iter()
                .map(|part| (part.to_owned(), body.remove(part).unwrap()))
                .collect();
        let plain = serde_json::to_vec(&person).unwrap();
        let sealed = key.seal(&plain, &format!("customer/{id}/{revision}"));
        body.insert("sealed".to_owned(), sealed.into());
    });
    (message, (key, wrapped))
}

#[test]
fn a_sealed_change_is_read_with_its_key_and_without_it_is_of_an_erased_customer() {
    let (message, key) = sealed("1", 3);
    let read = || event::read(&message).unwrap();
    let known = read().into_customer(Some(&key)).unwrap();
    assert_eq!(known.name.first_name, "First3");
    assert_eq!(known.addresses[0].address1, "1 Road");
    assert_eq!((known.data_key, known.erased), (Some(key.1), false));
    let erased = read().into_customer(None).unwrap();
    assert!(erased.erased && erased.addresses.is_empty() && erased.data_key.is_none());
    let (_, other) = sealed("1", 3);
    assert!(read().into_customer(Some(&other)).is_err());
}

#[test]
fn a_change_without_a_person_is_refused_unless_it_is_the_erasure() {
    let nobody = |kind: &str| {
        with_body(message("1", 2), |body| {
            body.as_object_mut().unwrap().remove("name");
            body["changeType"] = kind.into();
        })
    };
    assert!(event::read(&nobody("UPDATED")).is_err());
    let erased = event::read(&nobody("ERASED")).unwrap();
    assert!(erased.into_customer(None).unwrap().erased);
}

#[tokio::test]
async fn the_orders_of_an_erased_customer_forget_where_they_went_and_why_they_ended() {
    let world = crate::test_support::World::new().await;
    world.customer("1").await;
    world.customer("2").await;
    let orders = [world.place("1", "1").await, world.place("2", "1").await];
    assert!(orders.iter().all(|order| order.ship_to.is_some()));
    let projection = ReplicaProjection::new(
        world.backing.replica.clone(),
        crate::test_support::opener(),
        crate::erasure::Forgetting::new(Arc::clone(&world.stores.own.aggregates)),
    );
    // Sealed, and no key to it is known any more.
    let (message, _) = sealed("1", 2);
    let change = projection.decode(&message).unwrap();
    projection
        .apply(vec![(message.position, change)])
        .await
        .unwrap();
    let ids = orders.each_ref().map(|order| order.id.clone());
    let held = world.stores.own.aggregates.get_many(&ids).await.unwrap();
    let held: Vec<_> = held
        .into_iter()
        .map(|stored| stored.unwrap().state)
        .collect();
    assert!(held[0].ship_to.is_none() && held[0].customer_erased);
    assert_eq!(held[0].revision, 1, "it is no change of the order");
    assert_eq!(held[1], orders[1]);
    let cancelled = held[0].cancel(Some("moved".into()), None, chrono::Utc::now());
    assert_eq!(cancelled.unwrap().cancellation_reason, None);
}
