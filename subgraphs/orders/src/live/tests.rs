#![allow(clippy::unwrap_used)]
//! The shared parts of the tests of feeds on logs in memory. The tests of subscriptions are in the modules below.

mod access;
mod customer_subscription;
mod held_back;
mod published_again;
mod resumption;
mod subscription;

use std::pin::Pin;

use chrono::{TimeDelta, Utc};
use futures::{Stream, StreamExt};
use tandem_model::event::CloudEvent;
use tokio::time::timeout;

use super::{Interest, LiveError, item::OrderUpdate};
use crate::{
    domain::{Order, Placement},
    // Re-exported for the test modules below. Tests may use the feeds through the graph, but the released code of the
    // feeds does not depend on it.
    graphql::{OrdersSchema, schema},
    replica::ReplicaCustomer,
    test_support::{LIMIT, World, item},
};

pub(super) type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, LiveError>> + Send>>;

/// An order that was made this long ago. A negative age puts it into the future, so that it is surely newer than the
/// start of the feed.
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

/// Lets the audit projection process everything in the log.
pub(super) async fn audit(world: &World) {
    world.audit_everything().await;
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
