#![allow(clippy::unwrap_used)]
//! The REST routes on the embedded store.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use tower::ServiceExt;

use super::{Rest, description, router};
use crate::test_support::World;

async fn get(world: &World, path: &str) -> (StatusCode, String) {
    let rest = Rest {
        replica: world.backing.replica.clone(),
        orders: Arc::clone(world.backing.commands.store()),
    };
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router(rest).oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_unknown_customer_is_not_found() {
    let world = World::new().await;
    for path in ["/orders/order/nobody", "/orders/order/a%20b"] {
        let answer = get(&world, path).await;
        assert_eq!(
            answer,
            (StatusCode::NOT_FOUND, "Customer not found!".to_owned())
        );
    }
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
fn the_description_is_openapi_and_names_both_routes() {
    let text = description().to_json().unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/orders/list", "/orders/order/{customerId}"] {
        assert!(document["paths"].get(path).is_some(), "{text}");
    }
}
