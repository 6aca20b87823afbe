//! The GraphQL endpoint: `POST /graphql` for queries and mutations, WebSocket at `/graphql/ws` for subscriptions.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_graphql::http::{ALL_WEBSOCKET_PROTOCOLS, WebSocketProtocols, WsMessage};
use async_graphql::{
    Data, Executor, ObjectType, Request as GraphQlRequest, Response as GraphQlResponse,
    SchemaBuilder, ServerError, SubscriptionType,
};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::documents::ParsedDocuments;
use super::error::{ErrorCode, ErrorCodes};
use crate::shutdown::Shutdown;
use crate::trace_context::TraceContext;
use crate::web::Problem;

/// How long a client may take from opening a WebSocket to `connection_init`.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the server pings; clients need not ping.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long a connection may be silent (not even a pong) before it counts as lost.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// How long a client may take to accept one message before it counts as lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message that is taken from a client, in bytes.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Close codes of RFC 6455 and of the graphql-transport-ws protocol.
const GOING_AWAY: u16 = 1001;
const INIT_TIMED_OUT: u16 = 4408;

/// Who asks; resolvers find it in the request's data. Recorded as `changedBy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Arc<str>);

impl Caller {
    /// A caller known by name: a token's subject.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// A caller that brought no credentials.
    pub fn anonymous() -> Self {
        Self::new("anonymous")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::anonymous()
    }
}

/// How much one operation may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The deepest nesting of fields.
    pub depth: usize,
    /// The most fields, counted through all fragments.
    pub complexity: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 16,
            complexity: 1_000,
        }
    }
}

/// What every schema of ours gets: limits, and a code for every error.
pub fn guard<Q, M, S>(builder: SchemaBuilder<Q, M, S>, limits: Limits) -> SchemaBuilder<Q, M, S>
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    builder
        .limit_depth(limits.depth)
        .limit_complexity(limits.complexity)
        .extension(ErrorCodes)
}

type PrepareData = Arc<dyn Fn(&mut Data) + Send + Sync>;

/// The routes of one schema.
///
/// Resolvers find a [`Caller`] and a [`TraceContext`] in their context. A middleware in front names the caller by putting
/// a [`Caller`] into the request's extensions; without one it is anonymous.
#[derive(Clone)]
pub struct GraphQlEndpoint<E> {
    executor: E,
    shutdown: Shutdown,
    prepare: Option<PrepareData>,
}

impl<E: Executor> GraphQlEndpoint<E> {
    /// An endpoint for a schema; its WebSockets are closed when shutdown is requested.
    pub fn new(executor: E, shutdown: Shutdown) -> Self {
        Self {
            executor,
            shutdown,
            prepare: None,
        }
    }

    /// Puts something of its own into every operation's data, such as data loaders. Called once for each query,
    /// mutation and subscription, over HTTP as over WebSocket.
    #[must_use]
    pub fn with_operation_data(
        mut self,
        prepare: impl Fn(&mut Data) + Send + Sync + 'static,
    ) -> Self {
        self.prepare = Some(Arc::new(prepare));
        self
    }

    /// `POST /graphql` and `GET /graphql/ws`.
    pub fn router<R>(self) -> Router<R>
    where
        R: Clone + Send + Sync + 'static,
    {
        let endpoint = Endpoint {
            executor: PreparedExecutor {
                executor: self.executor,
                documents: ParsedDocuments::default(),
                prepare: self.prepare,
            },
            shutdown: self.shutdown,
        };
        Router::new()
            .route("/graphql", post(answer::<E>))
            .route("/graphql/ws", get(upgrade::<E>))
            .with_state(endpoint)
    }
}

#[derive(Clone)]
struct Endpoint<E> {
    executor: PreparedExecutor<E>,
    shutdown: Shutdown,
}

/// Prepares the document and the data of each operation, whichever way it came.
#[derive(Clone)]
struct PreparedExecutor<E> {
    executor: E,
    documents: ParsedDocuments,
    prepare: Option<PrepareData>,
}

impl<E> PreparedExecutor<E> {
    fn prepared(&self, mut request: GraphQlRequest) -> GraphQlRequest {
        self.documents.give(&mut request);
        if let Some(prepare) = &self.prepare {
            prepare(&mut request.data);
        }
        request
    }
}

impl<E: Executor> Executor for PreparedExecutor<E> {
    async fn execute(&self, request: GraphQlRequest) -> GraphQlResponse {
        self.executor.execute(self.prepared(request)).await
    }

    fn execute_stream(
        &self,
        request: GraphQlRequest,
        session_data: Option<Arc<Data>>,
    ) -> BoxStream<'static, GraphQlResponse> {
        self.executor
            .execute_stream(self.prepared(request), session_data)
    }
}

async fn answer<E: Executor>(
    State(endpoint): State<Endpoint<E>>,
    caller: Option<Extension<Caller>>,
    trace: Option<Extension<TraceContext>>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let message = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "the request is larger than what is taken",
                _ => "the request could not be read to its end",
            };
            return refuse(rejection.status(), message.into());
        }
    };
    let request = match read_request(&body) {
        Ok(request) => request,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    let (caller, trace) = origin(caller, trace);
    let response = endpoint
        .executor
        .execute(request.data(caller).data(trace))
        .await;
    let headers = response.http_headers.clone();
    (headers, Json(response)).into_response()
}

fn origin(
    caller: Option<Extension<Caller>>,
    trace: Option<Extension<TraceContext>>,
) -> (Caller, TraceContext) {
    (
        caller.map(|Extension(caller)| caller).unwrap_or_default(),
        trace.map_or_else(TraceContext::generate, |Extension(trace)| trace),
    )
}

/// One JSON request; a batch would multiply every limit.
fn read_request(body: &[u8]) -> Result<GraphQlRequest, String> {
    match body.trim_ascii_start().first() {
        None => return Err("the body is empty; send {\"query\": …, \"variables\": …}".into()),
        Some(b'[') => {
            return Err("batches are not taken; send one request, {\"query\": …}".into());
        }
        Some(_) => {}
    }
    let request: GraphQlRequest = serde_json::from_slice(body)
        .map_err(|error| format!("the body is no GraphQL request in JSON: {error}"))?;
    if request.query.trim().is_empty() {
        return Err("`query` is missing or empty".into());
    }
    Ok(request)
}

fn refuse(status: StatusCode, message: String) -> Response {
    let mut error = ServerError::new(message, None);
    error
        .extensions
        .get_or_insert_default()
        .set("code", ErrorCode::BadUserInput.as_str());
    (status, Json(GraphQlResponse::from_errors(vec![error]))).into_response()
}

async fn upgrade<E: Executor>(
    State(endpoint): State<Endpoint<E>>,
    caller: Option<Extension<Caller>>,
    trace: Option<Extension<TraceContext>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = upgrade
        .protocols(ALL_WEBSOCKET_PROTOCOLS)
        .max_message_size(MAX_MESSAGE);
    let protocol = upgrade
        .selected_protocol()
        .and_then(|protocol| protocol.to_str().ok())
        .and_then(|protocol| WebSocketProtocols::from_str(protocol).ok());
    let Some(protocol) = protocol else {
        return Problem::new(StatusCode::BAD_REQUEST)
            .with_detail(
                "ask for the WebSocket subprotocol graphql-transport-ws (or the older graphql-ws)",
            )
            .into_response();
    };
    let (caller, trace) = origin(caller, trace);
    upgrade.on_upgrade(move |socket| {
        let shutdown = endpoint.shutdown.clone();
        let session = converse(endpoint, socket, protocol, caller, trace);
        shutdown.track(trace.scope(session))
    })
}

/// Carries one WebSocket until either side ends it.
async fn converse<E: Executor>(
    endpoint: Endpoint<E>,
    socket: WebSocket,
    protocol: WebSocketProtocols,
    caller: Caller,
    trace: TraceContext,
) {
    let opened = Instant::now();
    let last_heard = Arc::new(AtomicU64::new(0));
    let initialised = Arc::new(AtomicBool::new(false));
    let (mut sink, frames) = socket.split();

    let heard = last_heard.clone();
    let input = frames
        .take_while(|frame| std::future::ready(frame.is_ok()))
        .filter_map(move |frame| {
            let since_opened = u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX);
            heard.store(since_opened, Ordering::Relaxed);
            std::future::ready(match frame {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(message.into_data()),
                _ => None,
            })
        });
    let mut data = Data::default();
    data.insert(caller);
    data.insert(trace);
    let on_init = initialised.clone();
    let output = async_graphql::http::WebSocket::new(endpoint.executor, input, protocol)
        .connection_data(data)
        .on_connection_init(move |_payload| {
            on_init.store(true, Ordering::Relaxed);
            std::future::ready(Ok(Data::default()))
        });
    tokio::pin!(output);

    let mut ping = tokio::time::interval_at(opened + PING_INTERVAL, PING_INTERVAL);
    let init_deadline = tokio::time::sleep_until(opened + INIT_TIMEOUT);
    tokio::pin!(init_deadline);
    let mut awaiting_init = true;
    loop {
        let message = tokio::select! {
            biased;
            () = endpoint.shutdown.requested() => close(GOING_AWAY, "the service is shutting down"),
            () = &mut init_deadline, if awaiting_init => {
                awaiting_init = false;
                if initialised.load(Ordering::Relaxed) {
                    continue;
                }
                close(INIT_TIMED_OUT, "Connection initialisation timeout")
            }
            _ = ping.tick() => {
                let heard_at = opened + Duration::from_millis(last_heard.load(Ordering::Relaxed));
                if heard_at.elapsed() > SILENCE_LIMIT {
                    tracing::debug!("a WebSocket fell silent");
                    return;
                }
                Message::Ping(Bytes::new())
            }
            message = output.next() => match message {
                Some(WsMessage::Text(text)) => Message::Text(text.into()),
                Some(WsMessage::Close(code, reason)) => close(code, &reason),
                None => return,
            },
        };
        let is_last = matches!(message, Message::Close(_));
        match tokio::time::timeout(SEND_TIMEOUT, sink.send(message)).await {
            Ok(Ok(())) if !is_last => {}
            Ok(_) => return,
            Err(_) => {
                tracing::debug!("a WebSocket took no message in time");
                return;
            }
        }
    }
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use async_graphql::{Context, EmptyMutation, Object, Schema, Subscription};
    use axum::body::Body;
    use axum::extract::Request;
    use axum::middleware::{self, Next};
    use futures::Stream;
    use serde_json::{Value, json};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::{Error as WsError, Message as ClientMessage};
    use tower::ServiceExt;

    use super::*;
    use crate::web::{HttpSettings, bind, serve};

    /// Counts how often operation data was prepared.
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
            let caller = Caller::new(named.to_str().unwrap());
            request.extensions_mut().insert(caller);
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
        GraphQlEndpoint::new(schema, shutdown.clone())
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

    type Client = tokio_tungstenite::WebSocketStream<
        tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>,
    >;

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
            let mut request = format!("ws://{}/graphql/ws", self.address)
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
        for (protocol, start, next) in [
            ("graphql-transport-ws", "subscribe", "next"),
            ("graphql-ws", "start", "data"),
        ] {
            let mut client = server.connect(Some(protocol)).await.unwrap();
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
            ClientMessage::Close(Some(frame)) => assert_eq!(u16::from(frame.code), GOING_AWAY),
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
}
