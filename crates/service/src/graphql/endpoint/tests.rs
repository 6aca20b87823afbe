#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The endpoint on a real server: operations by POST, subscriptions over WebSocket through the front door, and
//! refusals.

use async_graphql::{Context, EmptyMutation, Object, Schema, Subscription};
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use futures::Stream;
use serde_json::Value;
use tandem_authentication::{Principal, Scopes};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as ClientMessage};
use tower::ServiceExt;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};

use super::*;
use crate::web::{HttpSettings, bind, serve};

/// Counts how often the data of an operation was prepared.
struct Prepared(usize);

struct Query;

#[Object]
impl Query {
    async fn caller(&self, context: &Context<'_>) -> String {
        context.data_unchecked::<Caller>().as_str().to_owned()
    }
    async fn traced(&self, context: &Context<'_>) -> bool {
        context.data_opt::<TraceContext>().is_some()
    }
    async fn prepared(&self, context: &Context<'_>) -> usize {
        context.data_unchecked::<Prepared>().0
    }
}

struct Updates;

#[Subscription]
impl Updates {
    async fn count(&self, context: &Context<'_>) -> impl Stream<Item = String> + use<> {
        let caller = context.data_unchecked::<Caller>().as_str().to_owned();
        let prepared = context.data_unchecked::<Prepared>().0;
        futures::stream::iter(0..2)
            .map(move |number| format!("{caller} {prepared} {number}"))
            .chain(futures::stream::pending())
    }
}

async fn name_caller(mut request: Request, next: Next) -> Response {
    let named = request.headers().get("x-test-caller").cloned();
    if let Some(named) = named {
        let access = Access::Bearer(Principal {
            subject: named.to_str().unwrap().into(),
            scopes: Scopes::default(),
            expires_at: u64::MAX,
        });
        request.extensions_mut().insert(access);
    }
    next.run(request).await
}

fn router(shutdown: &Shutdown) -> Router {
    let schema = guard(
        Schema::build(Query, EmptyMutation, Updates),
        Limits::default(),
    )
    .finish();
    let counter = Arc::new(AtomicU64::new(0));
    GraphQlEndpoint::new(Graph::Orders, schema, shutdown.clone())
        .with_operation_data(move |data| {
            let nth = counter.fetch_add(1, Ordering::Relaxed) + 1;
            data.insert(Prepared(usize::try_from(nth).unwrap()));
        })
        .router()
        .layer(middleware::from_fn(name_caller))
}

async fn send(body: &str, caller: Option<&str>) -> (u16, Value) {
    let mut request = Request::post("/graphql").header("content-type", "application/json");
    if let Some(caller) = caller {
        request = request.header("x-test-caller", caller);
    }
    let response = router(&Shutdown::new())
        .oneshot(request.body(Body::from(body.to_owned())).unwrap())
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_query_is_answered_and_knows_who_asks() {
    let query = r#"{"query": "{ caller traced prepared }"}"#;
    let (status, body) = send(query, None).await;
    assert_eq!(status, 200);
    assert_eq!(
        body["data"],
        json!({"caller": "anonymous", "traced": true, "prepared": 1})
    );
    let (_, body) = send(query, Some("ada")).await;
    assert_eq!(body["data"]["caller"], "ada");
}

#[tokio::test]
async fn a_browser_gets_graphiql_and_a_program_is_told_to_post() {
    for (accept, status, kind) in [
        ("text/html,*/*;q=0.8", 200, "text/html; charset=utf-8"),
        ("*/*", 405, "application/json"),
    ] {
        let request = Request::get("/graphql")
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let response = router(&Shutdown::new()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{accept}");
        assert_eq!(response.headers()["content-type"], kind);
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_as_a_graphql_error() {
    for body in [
        "",
        "{",
        "[]",
        "5",
        "{}",
        r#"{"query": 5}"#,
        r#"{"query": ""}"#,
    ] {
        let (status, answer) = send(body, None).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{body}"
        );
    }
}

type Client =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

struct Server {
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let shutdown = Shutdown::new();
        let settings = HttpSettings::default();
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, app) = (shutdown.clone(), router(&shutdown));
        let task = tokio::spawn(async move {
            serve(listener, app, &settings, &stop).await.unwrap();
        });
        Self {
            address,
            shutdown,
            task,
        }
    }

    async fn connect(&self, protocol: Option<&str>) -> Result<Client, WsError> {
        self.connect_to("/graphql/ws", protocol).await
    }

    async fn connect_to(&self, path: &str, protocol: Option<&str>) -> Result<Client, WsError> {
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("x-test-caller", "ada".parse().unwrap());
        if let Some(protocol) = protocol {
            headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        Ok(tokio_tungstenite::connect_async(request).await?.0)
    }
}

async fn say(client: &mut Client, message: Value) {
    client
        .send(ClientMessage::text(message.to_string()))
        .await
        .unwrap();
}

async fn hear(client: &mut Client) -> ClientMessage {
    tokio::time::timeout(Duration::from_secs(5), client.next())
        .await
        .expect("a message in time")
        .expect("an open connection")
        .unwrap()
}

async fn hear_json(client: &mut Client) -> Value {
    serde_json::from_str(hear(client).await.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn a_subscription_is_served_in_both_protocols() {
    let server = Server::start().await;
    for (path, protocol, start, next) in [
        ("/graphql/ws", "graphql-transport-ws", "subscribe", "next"),
        ("/graphql/ws", "graphql-ws", "start", "data"),
        ("/graphql", "graphql-transport-ws", "subscribe", "next"),
    ] {
        let mut client = server.connect_to(path, Some(protocol)).await.unwrap();
        say(&mut client, json!({"type": "connection_init"})).await;
        assert_eq!(hear_json(&mut client).await["type"], "connection_ack");
        for id in ["first", "second"] {
            let payload = json!({"query": "subscription { count }"});
            say(
                &mut client,
                json!({"type": start, "id": id, "payload": payload}),
            )
            .await;
            for number in 0..2 {
                let message = hear_json(&mut client).await;
                assert_eq!(
                    (&message["type"], &message["id"]),
                    (&json!(next), &json!(id))
                );
                let text = message["payload"]["data"]["count"].as_str().unwrap();
                assert!(
                    text.starts_with("ada ") && text.ends_with(&format!(" {number}")),
                    "{text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn each_operation_of_a_connection_gets_data_of_its_own() {
    let server = Server::start().await;
    let mut client = server.connect(Some("graphql-transport-ws")).await.unwrap();
    say(&mut client, json!({"type": "connection_init"})).await;
    hear_json(&mut client).await;
    for expected in 1..3 {
        let payload = json!({"query": "{ prepared }"});
        say(
            &mut client,
            json!({"type": "subscribe", "id": "q", "payload": payload}),
        )
        .await;
        let message = hear_json(&mut client).await;
        assert_eq!(message["payload"]["data"]["prepared"], expected);
        assert_eq!(hear_json(&mut client).await["type"], "complete");
    }
}

#[tokio::test]
async fn an_open_websocket_is_closed_when_the_service_shuts_down() {
    let server = Server::start().await;
    let mut client = server.connect(Some("graphql-transport-ws")).await.unwrap();
    say(&mut client, json!({"type": "connection_init"})).await;
    hear_json(&mut client).await;
    server.shutdown.request("test");
    match hear(&mut client).await {
        // Service Restart (RFC 6455's registry): the client should reconnect.
        ClientMessage::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("not a close message: {other:?}"),
    }
    let limit = Duration::from_secs(5);
    tokio::time::timeout(limit, server.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.shutdown.drain(limit).await, Ok(()));
}

#[tokio::test]
async fn a_websocket_without_a_known_subprotocol_is_refused() {
    let server = Server::start().await;
    for protocol in [None, Some("chat")] {
        match server.connect(protocol).await {
            Err(WsError::Http(response)) => assert_eq!(response.status(), 400),
            other => panic!("not refused: {other:?}"),
        }
    }
}
