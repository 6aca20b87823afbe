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

/// Prepares the data of each operation, whichever way it came.
#[derive(Clone)]
struct PreparedExecutor<E> {
    executor: E,
    prepare: Option<PrepareData>,
}

impl<E> PreparedExecutor<E> {
    fn prepared(&self, mut request: GraphQlRequest) -> GraphQlRequest {
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
