//! Subscriptions through the gateway, over each transport that clients use.

use std::time::{Duration, Instant};

use futures::{SinkExt, Stream, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::process::Gateway;
use super::{stub, wait_until};

/// An update of the replica, with a field that the router must fetch from accounts.
pub(crate) const CUSTOMER: &str =
    r#"subscription { customerUpdated(id: "1") { id replica { revision } revision } }"#;

fn update(revision: i32) -> Value {
    json!({ "data": { "customerUpdated": { "id": "1", "replica": { "revision": revision }, "revision": 7 } } })
}

/// Opens a subscription by SSE. Returns the payloads of its events.
pub(crate) async fn sse(
    gateway: &Gateway,
    query: &str,
) -> impl Stream<Item = Value> + Unpin + use<> {
    let body = stream(gateway, query, "text/event-stream").await;
    parts(body, "\n\n", |part| {
        part.lines()
            .find_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
    })
}

async fn stream(gateway: &Gateway, query: &str, accept: &str) -> reqwest::Response {
    let answer = reqwest::Client::new()
        .post(format!("{}/graphql", gateway.url))
        .header("accept", accept)
        .json(&json!({ "query": query }))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    let content_type = answer.headers()["content-type"].to_str().unwrap();
    assert!(
        content_type.starts_with(accept.split(';').next().unwrap()),
        "{content_type}"
    );
    answer
}

fn parts(
    answer: reqwest::Response,
    separator: &'static str,
    read: fn(&str) -> Option<Value>,
) -> impl Stream<Item = Value> + Unpin {
    let state = (answer.bytes_stream(), String::new());
    Box::pin(futures::stream::unfold(
        state,
        move |(mut bytes, mut text)| async move {
            loop {
                while let Some(end) = text.find(separator) {
                    let part: String = text.drain(..end + separator.len()).collect();
                    if let Some(value) = read(part.trim_end_matches(separator)) {
                        return Some((value, (bytes, text)));
                    }
                }
                text.push_str(std::str::from_utf8(&bytes.next().await?.ok()?).unwrap());
            }
        },
    ))
}

async fn next(events: &mut (impl Stream<Item = Value> + Unpin)) -> Value {
    tokio::time::timeout(Duration::from_secs(20), events.next())
        .await
        .expect("an event within 20 s")
        .expect("the stream goes on")
}

#[tokio::test]
async fn server_sent_events_carry_updates_joined_with_the_other_service() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let mut events = sse(&gateway, CUSTOMER).await;
    wait_until("the subscription is open", || orders.subscribers() == 1).await;

    orders.update(8);
    assert_eq!(next(&mut events).await, update(8));
    orders.update(9);
    assert_eq!(next(&mut events).await, update(9));

    drop(events);
    wait_until("the service's subscription is closed", || {
        orders.subscribers() == 0
    })
    .await;
}

#[tokio::test]
async fn multipart_carries_each_update_at_once() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    for (accept, boundary) in [
        (r#"multipart/mixed;subscriptionSpec="1.0""#, "\r\n--graphql"),
        ("multipart/mixed", "\r\n---"),
    ] {
        let body = stream(&gateway, CUSTOMER, accept).await;
        let mut events = parts(body, boundary, |part| {
            let body: Value = serde_json::from_str(part.split_once("\r\n\r\n")?.1).ok()?;
            Some(body.get("payload").unwrap_or(&body).clone())
        });
        wait_until("the subscription is open", || orders.subscribers() > 0).await;

        // A heartbeat comes after 10 s. An update that arrives earlier did not wait for it.
        let begin = Instant::now();
        orders.update(8);
        assert_eq!(next(&mut events).await, update(8));
        orders.update(9);
        assert_eq!(next(&mut events).await, update(9));
        assert!(begin.elapsed() < Duration::from_secs(8));

        drop(events);
        wait_until("the subscription is closed", || orders.subscribers() == 0).await;
    }
}

#[tokio::test]
async fn a_web_socket_carries_queries_and_subscriptions() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let url = format!("{}/graphql", gateway.url.replace("http", "ws"));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert(
        "sec-websocket-protocol",
        "graphql-transport-ws".parse().unwrap(),
    );
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let mut send =
        async |value: Value| socket.send(Message::text(value.to_string())).await.unwrap();
    send(json!({ "type": "connection_init" })).await;
    send(json!({ "id": "q", "type": "subscribe", "payload": { "query": "{ orderingCustomer(id: 1) { id revision } }" } })).await;
    send(json!({ "id": "s", "type": "subscribe", "payload": { "query": CUSTOMER } })).await;
    let mut messages = Box::pin(socket.filter_map(async |message| {
        serde_json::from_str::<Value>(message.ok()?.to_text().ok()?).ok()
    }));

    assert_eq!(next(&mut messages).await["type"], "connection_ack");
    let answer = next(&mut messages).await;
    assert_eq!(
        answer["payload"],
        json!({ "data": { "orderingCustomer": { "id": "1", "revision": 7 } } })
    );
    assert_eq!(
        next(&mut messages).await,
        json!({ "id": "q", "type": "complete" })
    );
    wait_until("the subscription is open", || orders.subscribers() == 1).await;
    orders.update(8);
    assert_eq!(
        next(&mut messages).await,
        json!({ "id": "s", "type": "next", "payload": update(8) })
    );
}

#[tokio::test]
async fn updates_go_on_while_accounts_is_dead() {
    let orders = stub::orders().await;
    let gateway = Gateway::start(&stub::nowhere(), &orders.url).await;
    let mut events = sse(&gateway, CUSTOMER).await;
    wait_until("the subscription is open", || orders.subscribers() == 1).await;

    orders.update(8);
    let event = next(&mut events).await;

    let customer = json!({ "id": "1", "replica": { "revision": 8 }, "revision": null });
    assert_eq!(event["data"]["customerUpdated"], customer);
    let error = &event["errors"][0];
    assert_eq!(error["extensions"]["code"], "UNAVAILABLE");
    assert_eq!(error["extensions"]["service"], "accounts");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("accounts service cannot be reached"),
        "{message}"
    );
    orders.update(9);
    assert_eq!(
        next(&mut events).await["data"]["customerUpdated"]["replica"]["revision"],
        9
    );
}

#[tokio::test]
async fn a_subscription_to_a_dead_service_says_so() {
    let accounts = stub::accounts().await;
    let gateway = Gateway::start(&accounts.url, &stub::nowhere()).await;
    let mut events = sse(&gateway, CUSTOMER).await;
    let event = next(&mut events).await;
    assert_eq!(
        event["errors"][0]["extensions"]["code"], "UNAVAILABLE",
        "{event}"
    );
}
