//! GraphQL over a WebSocket (graphql-transport-ws, and the older graphql-ws of subscriptions-transport-ws): one session, from its
//! handshake (RFC 6455) to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::document::{Chosen, Kind};
use super::endpoint::{
    GraphQl, TOO_MANY_SUBSCRIPTIONS, filtered, is_event_stream, json_of, request_id,
};
use super::error::{Code, Refused, RequestError};
use super::events::{Event, Receiver};
use super::inner::{Inner, Origin, set_up};
use super::negotiation::Format;
use super::outgoing::{Outgoing, Queue, What};
use super::steps::carry_out;
use crate::http::admission::{Client, Rate, Share, TOO_FAST, whole_seconds};
use crate::http::problem::problem;
use crate::identity::{Identifier, Identity};
use crate::json::check_depth;
use crate::runtime::Task;
use crate::settings::SocketLimits;
use crate::shutdown::Stop;

/// A connection that is silent (not even a pong) for so many pings counts as lost. Clients need not ping.
const SILENT_PINGS: u32 = 3;
/// How long a client may take to accept one message before it counts as lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read at once, in bytes: each connection holds so much for as long as it is open, and most say little.
const READ_BUFFER: usize = 1024;
/// So many bytes of several messages are written together.
const WRITE_BUFFER: usize = 8 * 1024;
/// After an error so many bytes more are read and dropped.
const READ_ON: usize = 4 * 1024 * 1024;
/// The longest id of an operation, in bytes.
const LONGEST_ID: usize = 256;

/// Close codes of RFC 6455, section 7.4, and of graphql-transport-ws.
mod code {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const TOO_LARGE: u16 = 1009;
    /// Service Restart (IANA, WebSocket Close Code Number Registry): come again.
    pub(super) const RESTART: u16 = 1012;
    pub(super) const BAD_REQUEST: u16 = 4400;
    pub(super) const UNAUTHORIZED: u16 = 4401;
    pub(super) const INIT_TIMED_OUT: u16 = 4408;
    pub(super) const ALREADY_EXISTS: u16 = 4409;
    pub(super) const TOO_MANY_INITS: u16 = 4429;
}

/// Headers that a client may give in the payload of `connection_init`, as a browser cannot set them on the handshake.
const OF_INIT: [(&str, &str); 8] = [
    ("authorization", "authorization"),
    ("consistency", "tandem-consistency"),
    ("tandem-consistency", "tandem-consistency"),
    ("traceparent", "traceparent"),
    ("tracestate", "tracestate"),
    ("x-request-id", "x-request-id"),
    ("apollographql-client-name", "apollographql-client-name"),
    (
        "apollographql-client-version",
        "apollographql-client-version",
    ),
];

/// How messages are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// graphql-transport-ws
    Transport,
    /// graphql-ws of subscriptions-transport-ws
    Older,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Transport, Self::Older];

    fn name(self) -> &'static str {
        match self {
            Self::Transport => "graphql-transport-ws",
            Self::Older => "graphql-ws",
        }
    }

    /// The first that the client offers and this port speaks.
    fn chosen(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(|offered| {
                Self::ALL
                    .into_iter()
                    .find(|known| known.name() == offered.trim())
            })
    }

    fn next(self) -> &'static str {
        match self {
            Self::Transport => "next",
            Self::Older => "data",
        }
    }
}

/// Whether a request wants to become a WebSocket.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    parts.method == Method::GET
        && has_token(&parts.headers, &header::UPGRADE, "websocket")
        && has_token(&parts.headers, &header::CONNECTION, "upgrade")
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Whose connection becomes a WebSocket.
pub(crate) struct Handshake {
    /// Its address.
    pub(crate) address: Client,
    /// Who sent the handshake; `connection_init` may say otherwise.
    pub(crate) identity: Identity,
    /// Verifies the tokens of the session.
    pub(crate) identifier: Identifier,
    /// How often each client may ask, over all its connections.
    pub(crate) rate: Arc<Rate>,
}

/// Makes a WebSocket of a connection (RFC 6455, section 4.2).
pub(crate) fn upgrade<I: Inner>(
    graphql: &Arc<GraphQl>,
    inner: &I,
    by: Handshake,
    parts: &Parts,
    upgraded: hyper::upgrade::OnUpgrade,
    limits: SocketLimits,
    stop: &Stop,
) -> Response<Body> {
    let path = parts.uri.path();
    let version = parts.headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let mut response = problem(
            StatusCode::UPGRADE_REQUIRED,
            path,
            "WebSockets are of version 13 here",
        );
        let headers = response.headers_mut();
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    let Some(key) = parts.headers.get(header::SEC_WEBSOCKET_KEY) else {
        return problem(
            StatusCode::BAD_REQUEST,
            path,
            "a WebSocket's handshake has a `sec-websocket-key`",
        );
    };
    let Some(protocol) = Protocol::chosen(&parts.headers) else {
        return problem(
            StatusCode::BAD_REQUEST,
            path,
            "ask for the WebSocket subprotocol graphql-transport-ws (or the older graphql-ws)",
        );
    };
    let accept = derive_accept_key(key.as_bytes());
    // Apart from what carries it, which would have room for it more than once.
    let session = Box::new(Session {
        origin: Origin::new(&graphql.path, &parts.headers, &parts.extensions).detached(),
        request_id: request_id(&parts.headers).map(str::to_owned),
        graphql: Arc::clone(graphql),
        inner: inner.clone(),
        by,
        has_new_token: false,
        protocol,
        limits,
        is_initialised: false,
        operations: HashMap::new(),
        number: 0,
        queue: Queue::default(),
    });
    let stop = stop.clone();
    graphql
        .tasks
        .start(async move {
            match upgraded.await {
                Ok(upgraded) => session.run(TokioIo::new(upgraded), stop).await,
                Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
            }
        })
        .detach();

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(protocol.name()),
    );
    response
}

struct Session<I> {
    graphql: Arc<GraphQl>,
    inner: I,
    by: Handshake,
    /// Whether a message brought a token that is not verified yet.
    has_new_token: bool,
    origin: Origin,
    request_id: Option<String>,
    protocol: Protocol,
    limits: SocketLimits,
    is_initialised: bool,
    operations: HashMap<String, Open>,
    /// Of the operation that was opened last: an id may come again for another one.
    number: u64,
    queue: Queue,
}

/// After so many messages of one connection others have their turn: many come in one read.
const MESSAGES_AT_ONCE: usize = 16;

/// How fast messages of one connection are read, whatever they say: to refuse them takes time, too.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    messages: usize,
}

impl Pace {
    /// So many messages of a connection are taken in such a time.
    const MOST: usize = 500;
    const TIME: Duration = Duration::from_millis(100);

    fn of(begun: Instant) -> Self {
        Self { begun, messages: 0 }
    }

    /// One more, which came now; answers how long it waits if the ones before it came too fast.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.begun);
        if passed >= Self::TIME {
            *self = Self::of(now);
        }
        self.messages += 1;
        (self.messages > Self::MOST).then(|| Self::TIME.saturating_sub(passed))
    }
}

/// An operation that is open; it ends when this is dropped.
struct Open {
    number: u64,
    _task: Task,
}

/// Why a session ends: the code and the reason that the client is told.
#[derive(Debug, PartialEq)]
struct Close(u16, &'static str);

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

impl<I: Inner> Session<I> {
    async fn run(mut self: Box<Self>, io: TokioIo<hyper::upgrade::Upgraded>, stop: Stop) {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(self.limits.message))
            .max_frame_size(Some(self.limits.message));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config));
        let mut socket = Box::pin(socket).await;
        let end = self.converse(&mut socket, stop).await;
        // Operations end first: nothing is worked out for nobody.
        self.operations.clear();
        if let Some(Close(code, reason)) = end {
            // Room for this would be held for as long as the connection is open.
            Box::pin(close(&mut socket, code, reason)).await;
        }
    }

    /// Carries the session; answers how it is to be closed, or nothing if the client closed it or is gone.
    async fn converse(&mut self, socket: &mut Socket, stop: Stop) -> Option<Close> {
        let opened = Instant::now();
        let mut last_heard = opened;
        let SocketLimits {
            init, ping: every, ..
        } = self.limits;
        let mut ping = tokio::time::interval_at(opened + every, every);
        let init_deadline = tokio::time::sleep_until(opened + init);
        let stopped = stop.requested();
        tokio::pin!(init_deadline, stopped);
        let mut pace = Pace::of(opened);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => {
                    return Some(Close(code::RESTART, "the server is restarting: subscribe again with `after`"));
                }
                () = &mut init_deadline, if !self.is_initialised => {
                    return Some(Close(code::INIT_TIMED_OUT, "Connection initialisation timeout"));
                }
                _ = ping.tick() => {
                    if last_heard.elapsed() > every * SILENT_PINGS {
                        tracing::debug!("a WebSocket fell silent");
                        return None;
                    }
                    send(socket, Message::Ping(Bytes::new())).await?;
                }
                frame = socket.next() => {
                    last_heard = Instant::now();
                    // What the client sends meanwhile waits in its own system.
                    if let Some(wait) = pace.wait(last_heard) {
                        tokio::time::sleep(wait).await;
                    } else if pace.messages.is_multiple_of(MESSAGES_AT_ONCE) {
                        tokio::task::yield_now().await;
                    }
                    // Room for this would be held for as long as the connection is open.
                    let replies = match frame? {
                        Ok(Message::Text(text)) => {
                            Box::pin(self.take(text.as_bytes())).await
                        }
                        // Some clients send their text so.
                        Ok(Message::Binary(bytes)) => match std::str::from_utf8(&bytes) {
                            Ok(_) => Box::pin(self.take(&bytes)).await,
                            Err(_) => Err(Close(code::BAD_REQUEST, "Invalid message")),
                        },
                        Ok(Message::Close(_)) => {
                            answer_close(socket).await;
                            return None;
                        }
                        Ok(_) => Ok(None),
                        Err(error) => return closed_by(&error),
                    };
                    if std::mem::take(&mut self.has_new_token) {
                        let identifying = self.by.identifier.identify(self.origin.headers());
                        self.by.identity = Box::pin(identifying).await;
                    }
                    match replies {
                        Ok(Some(reply)) => send(socket, Message::Text(reply)).await?,
                        Ok(None) => {}
                        Err(close) => return Some(close),
                    }
                }
                one = self.queue.next() => {
                    self.pass_on(socket, one).await?;
                }
            }
        }
    }

    /// Sends what waits, several messages with one flush.
    async fn pass_on(&mut self, socket: &mut Socket, first: Outgoing) -> Option<()> {
        const AT_ONCE: usize = 64;
        let mut next = Some(first);
        let mut fed = 0;
        while let Some(one) = next {
            for message in self.written(one) {
                feed(socket, message).await?;
            }
            fed += 1;
            next = (fed < AT_ONCE).then(|| self.queue.take()).flatten();
        }
        match tokio::time::timeout(SEND_TIMEOUT, socket.flush()).await {
            Ok(Ok(())) => Some(()),
            _ => None,
        }
    }

    fn written(&mut self, one: Outgoing) -> Vec<Message> {
        let is_open = self
            .operations
            .get(one.id.as_ref())
            .is_some_and(|open| open.number == one.number);
        // The client ended it in the meantime.
        if !is_open {
            return Vec::new();
        }
        let id = serde_json::Value::from(one.id.as_ref());
        match one.what {
            What::Next(payload) => {
                let payload = String::from_utf8_lossy(&payload);
                let kind = self.protocol.next();
                vec![text(format!(
                    r#"{{"id":{id},"type":"{kind}","payload":{payload}}}"#
                ))]
            }
            What::Failed(errors) => {
                self.operations.remove(one.id.as_ref());
                vec![text(format!(
                    r#"{{"id":{id},"type":"error","payload":{errors}}}"#
                ))]
            }
            What::Complete => {
                self.operations.remove(one.id.as_ref());
                vec![text(format!(r#"{{"id":{id},"type":"complete"}}"#))]
            }
        }
    }

    /// Takes a message of the client; answers what is said at once.
    async fn take(&mut self, message: &[u8]) -> Result<Option<Utf8Bytes>, Close> {
        const INVALID: Close = Close(code::BAD_REQUEST, "Invalid message received");
        // The message and its payload stand around what a request may nest.
        check_depth(message, self.graphql.json_depth + 1)
            .map_err(|_| Close(code::BAD_REQUEST, "Message nests too deeply"))?;
        let said: Said<'_> = serde_json::from_slice(message).map_err(|_| INVALID)?;
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        match said.kind.as_str() {
            "connection_init" => {
                // The older protocol has no other message by which a client could bring a new token.
                if self.is_initialised && self.protocol == Protocol::Transport {
                    return Err(Close(
                        code::TOO_MANY_INITS,
                        "Too many initialisation requests",
                    ));
                }
                if said
                    .payload
                    .is_some_and(|raw| raw.get() != "null" && !is_object(&raw))
                {
                    return Err(INVALID);
                }
                take_headers(self.origin.headers_mut(), said.payload);
                self.has_new_token = true;
                self.is_initialised = true;
                Ok(Some(Utf8Bytes::from_static(r#"{"type":"connection_ack"}"#)))
            }
            "ping" => {
                // A member `authorization` of its payload is a new token, for what is begun from now on.
                if self.is_initialised && said.payload.as_ref().is_some_and(is_object) {
                    take_headers(self.origin.headers_mut(), said.payload);
                    self.has_new_token = true;
                }
                Ok(Some(Utf8Bytes::from_static(r#"{"type":"pong"}"#)))
            }
            "pong" => Ok(None),
            "subscribe" | "start" if self.starts(&said.kind) => {
                if !self.is_initialised {
                    return Err(Close(code::UNAUTHORIZED, "Unauthorized"));
                }
                let id = said
                    .id
                    .filter(|id| !id.is_empty() && id.len() <= LONGEST_ID)
                    .ok_or(INVALID)?;
                let payload = said.payload.filter(is_object).ok_or(INVALID)?;
                self.open(id, payload).await
            }
            "complete" | "stop" if self.ends(&said.kind) => {
                let id = said.id.ok_or(INVALID)?;
                self.operations.remove(&id);
                Ok(None)
            }
            "connection_terminate" if self.protocol == Protocol::Older => {
                Err(Close(code::NORMAL, ""))
            }
            _ => Err(INVALID),
        }
    }

    fn starts(&self, kind: &str) -> bool {
        (kind == "start") == (self.protocol == Protocol::Older)
    }

    fn ends(&self, kind: &str) -> bool {
        (kind == "stop") == (self.protocol == Protocol::Older)
    }

    async fn open(&mut self, id: String, payload: &RawValue) -> Result<Option<Utf8Bytes>, Close> {
        if self.operations.contains_key(&id) {
            return Err(Close(
                code::ALREADY_EXISTS,
                "Subscriber for this id already exists",
            ));
        }
        let body = Bytes::copy_from_slice(payload.get().as_bytes());
        let refuse = |refused: &Refused| {
            self.graphql.tell(refused, self.request_id.as_deref());
            let id = serde_json::Value::from(id.as_str());
            let errors = refused.errors();
            Ok(Some(Utf8Bytes::from(format!(
                r#"{{"id":{id},"type":"error","payload":{errors}}}"#
            ))))
        };
        if self.operations.len() >= self.limits.operations {
            return refuse(&RequestError::rate_limited(1, TOO_MANY_OPERATIONS).into());
        }
        let client = self.by.identity.client(self.by.address);
        if let Err(wait) = self.by.rate.take(client) {
            return refuse(&RequestError::rate_limited(whole_seconds(wait), TOO_FAST).into());
        }
        match self.by.identity.access() {
            Ok(access) => self.origin.allow(access),
            Err(rejection) => return refuse(&RequestError::token(&rejection).into()),
        }
        let share = Share::new(&self.by.rate, client);
        let call = match self.graphql.call(&body, &share).await {
            Ok(call) => call,
            Err(error) if error.code() == Code::RateLimited => return refuse(&error.into()),
            // A payload that is no request is no message of the protocol.
            Err(_) => return Err(Close(code::BAD_REQUEST, "Invalid message received")),
        };
        let ready = match self.graphql.ready(call, Some(body), false, &share).await {
            Ok(ready) => ready,
            Err(refused) => return refuse(&refused),
        };
        let is_subscription = ready.operation.kind == Kind::Subscription;
        let counted = match is_subscription.then(|| self.graphql.subscriptions.admit(client)) {
            None => None,
            Some(Some(counted)) => Some(counted),
            Some(None) => {
                return refuse(&RequestError::rate_limited(1, TOO_MANY_SUBSCRIPTIONS).into());
            }
        };
        self.number += 1;
        let output = Output {
            ends: self.by.identity.ends(),
            id: id.as_str().into(),
            number: self.number,
            queue: self.queue.clone(),
        };
        let accept = if is_subscription {
            "text/event-stream"
        } else {
            json_of(Format::OwnJson)
        };
        let origin = self.origin.clone();
        let (graphql, inner) = (Arc::clone(&self.graphql), self.inner.clone());
        let operation = ready.operation.clone();
        // What begins it is not held for as long as it goes on.
        let beginning = Box::pin(async move {
            match counted {
                Some(counted) => {
                    // Ended while it waits for its turn, it has cost nothing yet.
                    let turn = graphql.turn(client).await;
                    let request = origin.request(ready.body, accept);
                    let (answer, counted) =
                        set_up(graphql.tasks, &inner, request, counted, turn).await?;
                    Some((answer, Some(counted)))
                }
                None => {
                    let answer = carry_out(&inner, &origin, &ready, accept, graphql.max_answer);
                    Some((answer.await, None))
                }
            }
        });
        let graphql = Arc::clone(&self.graphql);
        let request_id = self.request_id.clone();
        let task = self.graphql.tasks.start(async move {
            let Some((answer, counted)) = beginning.await else {
                return output.put(What::Complete);
            };
            let _counted = counted;
            if is_event_stream(&answer) {
                let (events, _reads_ahead) =
                    graphql.events(answer.into_body(), operation.clone(), output.ends);
                return output.follow(&operation, events).await;
            }
            let request_id = request_id.as_deref();
            Box::pin(output.answer(&graphql, &operation, answer, request_id)).await;
        });
        self.operations.insert(
            id,
            Open {
                number: self.number,
                _task: task,
            },
        );
        Ok(None)
    }
}

const TOO_MANY_OPERATIONS: &str =
    "so many operations of one connection are not taken at once: end some first";

/// The way of one operation to the client.
struct Output {
    /// When its token ends.
    ends: Option<Instant>,
    id: Arc<str>,
    number: u64,
    queue: Queue,
}

impl Output {
    async fn answer(
        &self,
        graphql: &GraphQl,
        operation: &Chosen,
        answer: Response<Body>,
        request_id: Option<&str>,
    ) {
        match graphql.told(operation, answer, request_id).await {
            Some(bytes) => self.finish(filtered(operation, bytes)),
            None => self.put(What::Complete),
        }
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` has room for what it is given twice"
    )]
    fn follow<'a>(
        &'a self,
        operation: &'a Chosen,
        mut events: Receiver,
    ) -> impl Future<Output = ()> + Send + 'a {
        async move {
            let mut is_first = true;
            while let Some(event) = events.next().await {
                match event {
                    Event::Next(payload) => {
                        if std::mem::take(&mut is_first)
                            && let Some(errors) = request_errors(&payload)
                        {
                            return self.put(What::Failed(errors));
                        }
                        if !self.queue.has_room(payload.len()) {
                            Box::pin(self.queue.room(payload.len())).await;
                        }
                        self.put(What::Next(filtered(operation, payload)));
                    }
                    Event::End(None) => self.put(What::Complete),
                    Event::Failed(errors) => self.put(What::Failed(errors)),
                    Event::End(Some(error)) => {
                        self.put(What::Failed(Refused::from(error).errors().to_string()));
                    }
                }
            }
        }
    }

    fn finish(&self, answer: Bytes) {
        match request_errors(&answer) {
            Some(errors) => self.put(What::Failed(errors)),
            None => {
                self.put(What::Next(answer));
                self.put(What::Complete);
            }
        }
    }

    fn put(&self, what: What) {
        self.queue.put(Outgoing {
            id: Arc::clone(&self.id),
            number: self.number,
            what,
        });
    }
}

/// The errors of a response without data: the operation was not carried out at all (graphql-transport-ws, `error`).
fn request_errors(response: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        #[serde(borrow, default)]
        errors: Option<&'a RawValue>,
    }
    // Most answers begin with their data.
    if response.starts_with(br#"{"data""#) {
        return None;
    }
    let answer: Answer<'_> = serde_json::from_slice(response).ok()?;
    answer
        .data
        .is_none()
        .then_some(answer.errors?.get().to_owned())
}

/// Takes headers from the payload of `connection_init`: its members, or those of its member `headers`.
fn take_headers(headers: &mut HeaderMap, payload: Option<&RawValue>) {
    let Some(serde_json::Value::Object(payload)) =
        payload.and_then(|raw| serde_json::from_str(raw.get()).ok())
    else {
        return;
    };
    let nested = payload
        .get("headers")
        .and_then(serde_json::Value::as_object);
    for (name, value) in nested.into_iter().flatten().chain(&payload) {
        let name = name.to_ascii_lowercase();
        let known = OF_INIT.iter().find(|(known, _)| *known == name);
        if let Some((_, header)) = known
            && let Some(Ok(value)) = value.as_str().map(HeaderValue::from_str)
        {
            headers.insert(*header, value);
        }
    }
}

fn text(message: String) -> Message {
    Message::Text(message.into())
}

async fn send(socket: &mut Socket, message: Message) -> Option<()> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Some(()),
        _ => None,
    }
}

async fn feed(socket: &mut Socket, message: Message) -> Option<()> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.feed(message)).await {
        Ok(Ok(())) => Some(()),
        _ => None,
    }
}

/// How a connection is closed that broke the protocol.
fn closed_by(error: &WsError) -> Option<Close> {
    Some(match error {
        WsError::Utf8(_) => Close(code::NOT_UTF8, "text must be UTF-8"),
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            Close(code::TOO_LARGE, "the message is too large")
        }
        WsError::Capacity(_) => Close(code::TOO_LARGE, "too large"),
        WsError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => {
            return None;
        }
        WsError::Protocol(_) => Close(code::PROTOCOL, "not as RFC 6455 has it"),
        _ => return None,
    })
}

/// Sends the close frame that answers the client's (RFC 6455, section 5.5.1): it was made when the client's was read, and waits for a
/// flush. Another message could not be sent any more.
async fn answer_close(socket: &mut Socket) {
    let closing = async {
        if socket.flush().await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

/// Says goodbye and waits a moment for the answer, so that the client reads it.
async fn close(socket: &mut Socket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code: code.into(),
        reason: Utf8Bytes::from_static(reason),
    };
    let closing = async {
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = socket.next().await {}
        // After an error the rest is no frames any more. It is read all the same: a connection that is closed with bytes unread
        // is reset, and the client would never see the close frame.
        let mut rest = vec![0; 16 * 1024];
        let mut read = 0;
        while read < READ_ON
            && let Ok(more @ 1..) = socket.get_mut().read(&mut rest).await
        {
            read += more;
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_come_faster_than_they_are_read_wait_and_those_after_a_pause_do_not() {
        let begun = Instant::now();
        let mut pace = Pace::of(begun);
        for _ in 0..Pace::MOST {
            assert_eq!(pace.wait(begun), None);
        }
        let later = begun + Pace::TIME / 4;
        assert_eq!(pace.wait(later), Some(Pace::TIME * 3 / 4));
        for _ in 0..Pace::MOST {
            assert_eq!(pace.wait(begun + Pace::TIME), None);
        }
        assert!(pace.wait(begun + Pace::TIME).is_some());
    }
}
