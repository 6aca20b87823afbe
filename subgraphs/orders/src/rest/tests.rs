#![allow(clippy::unwrap_used)]
//! Tests of the REST routes on the embedded store.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Extension,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
    response::Response,
};
use futures::StreamExt;
use tandem_authentication::Access;
use tandem_event_path::commands::Gate;
use tandem_runtime::consistency::{Kind, Written};
use tandem_service::web::consistency::Behind;
use tower::ServiceExt;

use super::{Rest, description, router};
use crate::{replica::contract::customer, test_support::World};

fn rest(world: &World) -> Rest {
    Rest {
        replica: world.backing.replica.clone(),
        orders: Arc::clone(world.backing.commands.store()),
        gate: world.backing.commands.gate().clone(),
    }
}

async fn ask(world: &World, method: &str, path: &str) -> Response {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).unwrap();
    router(rest(world))
        .layer(Extension(Access::Open))
        .oneshot(request)
        .await
        .unwrap()
}

async fn get(world: &World, path: &str) -> (StatusCode, String) {
    let response = ask(world, "GET", path).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Creates this many customers without orders.
async fn customers(world: &World, count: usize) {
    let customers = (0..count).map(|n| customer(&format!("c-{n:06}"), 1));
    let customers = customers.collect();
    world.backing.replica.take(customers).await.unwrap();
}

#[tokio::test]
async fn an_unknown_customer_is_not_found() {
    let world = World::new().await;
    for path in [
        "/orders/order/nobody",
        "/orders/order/a%20b",
        "/orders/order/%ff",
    ] {
        let answer = get(&world, path).await;
        assert_eq!(
            answer,
            (StatusCode::NOT_FOUND, "Customer not found!".to_owned())
        );
    }
}

#[tokio::test]
async fn a_customer_whom_the_caller_wrote_and_the_replica_lacks_is_not_called_missing() {
    let world = World::new().await;
    let behind = Behind::of(&[Written {
        kind: Kind::Customer,
        id: "new".to_owned(),
        revision: 1,
    }]);
    for (id, status) in [
        ("new", StatusCode::SERVICE_UNAVAILABLE),
        ("nobody", StatusCode::NOT_FOUND),
    ] {
        let request = Request::get(format!("/orders/order/{id}"));
        let response = router(rest(&world))
            .layer(Extension(Access::Open))
            .layer(Extension(behind.clone().unwrap()))
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{id}");
        let is_told_when = response.headers().contains_key("retry-after");
        assert_eq!(is_told_when, status != StatusCode::NOT_FOUND, "{id}");
    }
}

#[tokio::test]
async fn while_the_store_is_being_filled_nobody_is_missing_and_no_list_is_short() {
    let mut world = World::new().await;
    world.customer("1").await;
    let gate = Gate::closed();
    world.stand_behind(gate.clone());
    for path in ["/orders/order/nobody", "/orders/order/1", "/orders/list"] {
        let response = ask(&world, "GET", path).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(response.headers().contains_key("retry-after"), "{path}");
        let (_, text) = get(&world, path).await;
        assert!(text.contains("filled from the log"), "{path}: {text}");
    }
    let (status, _) = get(&world, "/orders/order/a%20b").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    gate.let_through();
    let (status, _) = get(&world, "/orders/order/nobody").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = get(&world, "/orders/list").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_customer_is_shown_with_orders_and_exact_prices() {
    let world = World::new().await;
    world.customer("123456").await;
    let order = world.place("123456", "12.50").await;
    let (status, text) = get(&world, "/orders/order/123456").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("\"price\":12.50}"), "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["orders"],
        serde_json::json!([{
            "guid": order.id,
            "orderItems": [{
                "product": {"guid": "p-1", "title": "Hammer", "description": null, "price": 12.5},
                "quantity": 1,
            }],
        }])
    );
    assert_eq!(document["id"], "123456");
    assert_eq!(document["addresses"][0]["postalCode"], "10110");
    let (_, list) = get(&world, "/orders/list").await;
    assert_eq!(list, format!("[{text}]"));
}

#[tokio::test]
async fn one_document_has_its_length_and_head_has_it_too() {
    let world = World::new().await;
    world.customer("123456").await;
    world.place("123456", "12.50").await;
    let (_, text) = get(&world, "/orders/order/123456").await;
    for (method, sent) in [("GET", text.len()), ("HEAD", 0)] {
        let response = ask(&world, method, "/orders/order/123456").await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let declared = response.headers().get("content-length");
        let declared = declared.map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(declared, Some(text.len().to_string()), "{method}");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.len(), sent, "{method}");
    }
}

#[tokio::test]
async fn one_document_costs_one_read_of_each_store() {
    let world = World::new().await;
    world.customer("123456").await;
    world.place("123456", "12.50").await;
    world.orders.reads();
    world.customers.gets.store(0, Ordering::SeqCst);
    get(&world, "/orders/order/123456").await;
    assert_eq!(world.customers.gets.load(Ordering::SeqCst), 1);
    assert_eq!(world.orders.reads(), [0, 1]);
}

#[tokio::test]
async fn a_list_begins_at_once_and_goes_no_further_than_its_reader() {
    let world = World::new().await;
    customers(&world, 6_000).await;
    let response = ask(&world, "GET", "/orders/list").await;
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"[{\"id\":\"c-000000\""), "{first:?}");
    assert!(first.len() < 32 * 1024, "{}", first.len());
    // The writer continues until it waits for its reader. After that it reads no more pages.
    let mut read = 0;
    loop {
        let before = std::mem::replace(&mut read, world.customers.pages.load(Ordering::SeqCst));
        if before == read && read > 1 {
            break;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }
    assert!(read < 5, "{read} pages are read for nobody");
    let mut rest = first.to_vec();
    while let Some(chunk) = body.next().await {
        rest.extend_from_slice(&chunk.unwrap());
    }
    let list: Vec<serde_json::Value> = serde_json::from_slice(&rest).unwrap();
    assert_eq!(list.len(), 6_000);
}

#[tokio::test]
async fn orders_of_a_page_of_customers_are_one_read() {
    let world = World::new().await;
    customers(&world, 1_000).await;
    world.place("c-000001", "1").await;
    world.place("c-000999", "1").await;
    world.orders.reads();
    let (_, text) = get(&world, "/orders/list").await;
    let pages = world.customers.pages.load(Ordering::SeqCst);
    assert!(pages <= 5, "{pages}");
    let [gets, lists] = world.orders.reads();
    assert!(gets == 0 && lists < pages, "{gets} {lists}");
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let with_orders = list.iter().filter(|one| one["orders"][0].is_object());
    let with_orders: Vec<_> = with_orders.map(|one| one["id"].as_str()).collect();
    assert_eq!(with_orders, [Some("c-000001"), Some("c-000999")]);
}

#[tokio::test]
async fn a_store_that_goes_away_in_mid_list_breaks_the_answer() {
    let world = World::new().await;
    customers(&world, 1_000).await;
    world.customers.away_after.store(2, Ordering::SeqCst);
    let response = ask(&world, "GET", "/orders/list").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(to_bytes(response.into_body(), usize::MAX).await.is_err());
    // If the store is away from the beginning, the status says so.
    assert_eq!(
        get(&world, "/orders/list").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn orders_of_the_erased_and_the_unknown_are_not_shown() {
    let world = World::new().await;
    for id in ["a", "b", "c"] {
        world.customer(id).await;
        world.place(id, "1").await;
    }
    let mut erased = customer("b", 2);
    erased.erased = true;
    world.backing.replica.take(vec![erased]).await.unwrap();
    let (_, text) = get(&world, "/orders/list").await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = list.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "c"]);
    assert!(
        list.iter()
            .all(|one| one["orders"].as_array().unwrap().len() == 1)
    );
    let not_found = get(&world, "/orders/order/b").await;
    assert_eq!(not_found.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_empty_list_is_an_empty_array() {
    let world = World::new().await;
    assert_eq!(
        get(&world, "/orders/list").await,
        (StatusCode::OK, "[]".to_owned())
    );
}

#[tokio::test]
async fn a_long_list_is_whole_and_in_order() {
    let world = World::new().await;
    for n in 0..230 {
        world.customer(&format!("c-{n:03}")).await;
    }
    for _ in 0..120 {
        world.place("c-100", "0.1").await;
    }
    let (_, text) = get(&world, "/orders/list").await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let ids: Vec<&str> = list.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..230).map(|n| format!("c-{n:03}")).collect();
    assert_eq!(ids, expected);
    let orders = list[100]["orders"].as_array().unwrap();
    assert_eq!(orders.len(), 120);
    assert!(orders.is_sorted_by_key(|order| order["guid"].as_str().map(str::to_owned)));
}

#[test]
fn the_committed_description_is_what_the_code_says() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../schema/openapi/orders.json"
    );
    let made = tandem_service::web::openapi::committed(&description()).unwrap();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == made,
        "schema/openapi/orders.json is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem-orders`"
    );
}

#[test]
fn the_description_is_openapi_and_names_both_routes() {
    let text = description().to_json().unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/orders/list", "/orders/order/{customerId}"] {
        assert!(document["paths"].get(path).is_some(), "{text}");
    }
}
