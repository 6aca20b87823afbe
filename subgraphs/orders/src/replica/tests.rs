#![allow(clippy::unwrap_used)]
//! Tests of the replica on the embedded store: its contract, its reading of events, and waiting readers.

use std::{sync::Arc, time::Duration};

use tandem_assembly::admin::dead_letters::{Retry, RetryError, RetryProjection};
use tandem_event_contract as event_contract;
use tandem_event_path::{
    data_keys::DataKey,
    outbox::PendingEvent,
    projection::Projection,
    store::{Outcome, Write},
    waiting::Waiting as Waits,
};
use tandem_model::{
    message::{Message, Position},
    seal::Key,
};
use tandem_store_redb::{Codec, EmbeddedStore};

use super::{
    Replica, ReplicaCustomer, Waited, contract, embedded::EmbeddedReplica, event,
    projection::ReplicaProjection, waiting::Waiting,
};

async fn replica() -> (tempfile::TempDir, Replica) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("orders.redb"), Codec::plain()).unwrap();
    let replica = EmbeddedReplica::open(store).await.unwrap();
    (folder, Replica::new(Arc::new(replica)))
}

/// The time of replication in these tests.
fn now() -> tandem_model::values::Timestamp {
    chrono::Utc::now().into()
}

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
        "createdAt": "2026-11-23T10:00:00.123Z",
        "updatedAt": "2026-11-23T10:00:00.123Z",
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
        published_ms: None,
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
        Waits::of(
            "test",
            Arc::clone(&world.stores.own.dead_letters),
            world.shutdown.clock(),
        ),
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
    assert!(event::read(&no_key).is_ok(), "its subject says whose it is");
    let mut other_subject = message("1", 1);
    other_subject.headers[4].1 = b"2".to_vec();
    assert!(reason(other_subject).contains("ce_subject"));
    let mut no_subject = message("1", 1);
    no_subject.headers.remove(4);
    assert!(event::read(&no_subject).is_ok());
    let unknown = with_body(message("1", 1), |body| body["changeType"] = "MERGED".into());
    assert!(reason(unknown).contains("changeType"));
    let mut other_kind = message("1", 1);
    other_kind.headers[3].1 = b"OrderChangeEvent".to_vec();
    assert!(reason(other_kind).contains("ce_type is OrderChangeEvent"));
    let no_id = with_body(message("1", 1), |body| {
        body.as_object_mut().unwrap().remove("id");
    });
    assert!(reason(no_id).contains("id: missing"));
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
        let mut read =
            serde_json::to_value(read.into_customer(Key::Erased, now()).unwrap()).unwrap();
        // The time of replication does not come from the event.
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
        // Fields that a later version adds are ignored.
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

/// The same message with sealed personal data, as accounts publishes it, and the customer's key.
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
fn a_sealed_change_is_read_with_its_key_and_without_it_says_nothing_of_the_customer() {
    let (message, key) = sealed("1", 3);
    let read = || event::read(&message).unwrap();
    let known = read()
        .into_customer(Key::Here(&key.0, &key.1), now())
        .unwrap();
    assert_eq!(known.name.first_name, "First3");
    assert_eq!(known.addresses[0].address1, "1 Road");
    assert_eq!((known.data_key, known.erased), (Some(key.1), false));
    let erased = read().into_customer(Key::Erased, now()).unwrap();
    assert!(erased.erased && erased.addresses.is_empty() && erased.data_key.is_none());
    let missing = read().into_customer(Key::Missing("not there"), now());
    assert_eq!(missing.unwrap_err().reason, "not there");
    let (_, other) = sealed("1", 3);
    let other = Key::Here(&other.0, &other.1);
    assert!(read().into_customer(other, now()).is_err());
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
    assert!(erased.into_customer(Key::Erased, now()).unwrap().erased);
}

#[tokio::test]
async fn a_dead_letter_that_takes_a_missing_key_names_it_when_it_is_retried() {
    let world = crate::test_support::World::new().await;
    let projection = ReplicaProjection::new(
        world.backing.replica.clone(),
        crate::test_support::opener(),
        crate::erasure::Forgetting::new(Arc::clone(&world.stores.own.aggregates)),
        Waits::of(
            "test",
            Arc::clone(&world.stores.own.dead_letters),
            world.shutdown.clock(),
        ),
    );
    let retry = RetryProjection {
        projection: Arc::new(projection),
        topic: event::TOPIC,
    };
    let refused = retry.retry(sealed("1", 1).0).await.unwrap_err();
    assert!(matches!(refused, RetryError::Refused(_)), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("the data key of \"1\""), "{told}");
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
        crate::test_support::opener_that_erased("1"),
        crate::erasure::Forgetting::new(Arc::clone(&world.stores.own.aggregates)),
        Waits::of(
            "test",
            Arc::clone(&world.stores.own.dead_letters),
            world.shutdown.clock(),
        ),
    );
    // The event is sealed, and the topic of keys shows the tombstone.
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

#[tokio::test]
async fn an_order_that_was_written_while_its_customer_was_erased_forgets_the_person_though_its_writer_died()
 {
    let world = crate::test_support::World::new().await;
    world.customer("1").await;
    let placed = world.place("1", "1").await;
    let erased = ReplicaCustomer {
        erased: true,
        ..contract::customer("1", 2)
    };
    world.backing.replica.take(vec![erased]).await.unwrap();
    let store = &world.stores.own.aggregates;
    let forgetting = crate::erasure::Forgetting::new(Arc::clone(store));
    forgetting.forget("1").await.unwrap();
    // Writes of a process that decided before the erasure and dies before it reads the customer again: a change of an
    // order whose personal data has been removed, and a new order.
    let cancelled = placed
        .cancel(Some("moved".into()), None, chrono::Utc::now())
        .unwrap();
    let other = crate::domain::Order {
        id: uuid::Uuid::now_v7().to_string(),
        ..placed.clone()
    };
    for order in [&cancelled, &other] {
        let event = crate::test_support::event(order);
        let write = Write {
            expected_revision: order.revision - 1,
            state: order.clone(),
            event: PendingEvent {
                key: order.id.clone(),
                revision: order.revision,
                recorded_at: chrono::Utc::now(),
                event: event.clone(),
                companions: Vec::new(),
            },
            idempotency_key: None,
            forget_answers: false,
        };
        assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
        world.order_log.append(0, &event);
    }
    let ids = [placed.id, other.id];
    let held = || async {
        let held = store.get_many(&ids).await.unwrap().into_iter();
        held.map(|stored| stored.unwrap().state).collect::<Vec<_>>()
    };
    assert!(held().await.iter().all(|order| order.ship_to.is_some()));
    let audit = world.audit();
    let messages = world.order_log.messages().into_iter();
    let items = messages.map(|message| (message.position, audit.decode(&message).unwrap()));
    audit.apply(items.collect()).await.unwrap();
    for order in held().await {
        assert!(order.customer_erased && order.ship_to.is_none());
        assert_eq!(order.cancellation_reason, None);
    }
}
