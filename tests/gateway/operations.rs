//! The operator's routes that the gateway passes on: with which token, and which headers a service does not get.

use std::process::Command;

use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tandem_backends::free_port;
use tokio::net::TcpListener;

use super::process::{self, Gateway};
use super::stub;

/// A service that responds with the request that it got.
async fn echo() -> String {
    async fn told(headers: HeaderMap, uri: axum::http::Uri, body: String) -> Json<Value> {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        Json(json!({
            "uri": uri.to_string(),
            "authorization": text("authorization"),
            "origin": text("origin"),
            "body": body,
        }))
    }
    let routes = Router::new()
        .route("/admin/dead-letters", get(told))
        .route("/admin/dead-letters/retry", post(told))
        .route("/admin/dead-letters/discard-all", post(told));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    url
}

async fn gateway(accounts: &str, orders: &str, settings: impl FnOnce(&mut Command)) -> Gateway {
    let data = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let mut command = process::command(port, accounts, orders, data.path());
    settings(&mut command);
    Gateway::start_command(command, port, data).await
}

async fn operators(gateway: &Gateway) -> Value {
    let here = reqwest::get(format!("{}/operations/here.json", gateway.url)).await;
    let here: Value = here.unwrap().json().await.unwrap();
    here["operators"].clone()
}

#[tokio::test]
async fn a_gateway_that_was_given_no_operators_token_passes_on_what_came_and_adds_nothing() {
    let orders = echo().await;
    let gateway = gateway(&stub::nowhere(), &orders, |_| {}).await;
    assert_eq!(operators(&gateway).await, "nobody");
    let letters = format!(
        "{}/operations/orders/admin/dead-letters?key=a%20b",
        gateway.url
    );
    let answer = reqwest::get(&letters).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["uri"], "/admin/dead-letters?key=a%20b");
    assert_eq!(told["authorization"], Value::Null);
    let told: Value = Client::new()
        .get(&letters)
        .bearer_auth("mine")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(told["authorization"], "Bearer mine");
    let accounts = format!("{}/operations/accounts/admin/dead-letters", gateway.url);
    let away = reqwest::get(&accounts).await.unwrap();
    assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = away.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("accounts") && !detail.contains("127.0.0.1"),
        "{detail}"
    );
}

#[tokio::test]
async fn under_up_the_operators_token_is_shown_to_a_service_for_pages_of_this_origin_alone() {
    let orders = echo().await;
    let with_token = |command: &mut Command| {
        command.env("TANDEM_OPERATOR_TOKEN", "of-the-operator");
    };
    let gateway = gateway(&stub::nowhere(), &orders, with_token).await;
    assert_eq!(operators(&gateway).await, "everybody");
    let ask = async |path: &str, origin: &str| {
        Client::new()
            .post(format!("{}/operations/orders/admin/{path}", gateway.url))
            .header("origin", origin)
            .json(&json!({"key": "7"}))
            .send()
            .await
            .unwrap()
    };
    let told: Value = ask("dead-letters/retry", &gateway.url)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(told["authorization"], "Bearer of-the-operator");
    assert_eq!(told["body"], r#"{"key":"7"}"#);
    assert_eq!(told["origin"], Value::Null);
    let foreign = ask("dead-letters/retry", "http://localhost:3000").await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let many = ask("dead-letters/discard-all", &gateway.url).await;
    assert_eq!(many.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn beyond_loopback_a_gateway_keeps_the_operators_token_to_itself() {
    let orders = echo().await;
    let gateway = gateway(&stub::nowhere(), &orders, |command| {
        command
            .env("TANDEM_OPERATOR_TOKEN", "of-the-operator")
            .args(["--host", "0.0.0.0", "--insecure-no-auth"]);
    })
    .await;
    assert_eq!(operators(&gateway).await, "nobody");
    let url = format!("{}/operations/orders/admin/dead-letters", gateway.url);
    let told: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(told["authorization"], Value::Null);
}
