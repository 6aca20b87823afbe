#![allow(clippy::unwrap_used)]
//! The replica on the embedded store: its contract, its reading of events, and those who wait for it.

use std::{sync::Arc, time::Duration};

use tandem_kit::{
    consumer::Projection,
    event_contract,
    kafka::message::{Message, Position},
    store::embedded::EmbeddedStore,
};

use super::{
    Replica, Waited, contract, embedded::EmbeddedReplica, event, projection::ReplicaProjection,
};

async fn replica() -> (tempfile::TempDir, Replica) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("orders.redb")).unwrap();
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
    let (_folder, replica) = replica().await;
    let projection = ReplicaProjection::new(replica.clone());
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
        let mut read = serde_json::to_value(read).unwrap();
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
            body["name"]["nickname"] = "J".into();
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
