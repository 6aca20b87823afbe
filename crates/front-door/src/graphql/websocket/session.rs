//! One session of GraphQL over a WebSocket, from its first message to its end.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

mod identifying;
mod opening;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::request::Parts;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::arriving::{Arriving, Unfinished};
use super::close_code::{self, Close, closed_by};
use super::message_rate::MessageRate;
use super::protocol::Protocol;
use super::socket::{SEND_TIMEOUT, Socket, answer_close, close, feed, send};
use crate::graphql::endpoint::GraphQl;
use crate::graphql::inner::{Inner, Origin};
use crate::graphql::outgoing::{Outgoing, Queue, What};
use crate::graphql::telemetry::Named;
use crate::http::admission::{Client, Rate};
use crate::identity::{Identifier, Identity};
use crate::json::check_depth;
use crate::runtime::Task;
use crate::settings::SocketLimits;
use crate::shutdown::Stop;

/// A connection that is silent for this many pings, without even a pong, counts as lost. Clients need not ping.
const SILENT_PINGS: u32 = 3;
/// The size of the read buffer, in bytes. Each open connection holds one, and most clients send little.
const READ_BUFFER: usize = 1024;
/// Several messages are written together, up to this many bytes.
const WRITE_BUFFER: usize = 8 * 1024;
/// A client that continues after this many refusals ignores them. The session ends, which frees what it holds.
const REFUSED_IN_A_ROW: usize = 500;
/// The longest id of an operation, in bytes.
const LONGEST_ID: usize = 256;
/// About how many bytes surround the id and payload of a message.
const AROUND: usize = 48;
/// After this many messages of one connection other tasks run: one read may return many messages.
const MESSAGES_AT_ONCE: usize = 16;

/// The caller whose connection becomes a WebSocket.
pub(crate) struct Handshake {
    /// The address of the caller.
    pub(crate) address: Client,
    /// Who sent the handshake. `connection_init` may replace it.
    pub(crate) identity: Identity,
    /// Verifies the tokens of the session.
    pub(crate) identifier: Identifier,
    /// The rate limit of each client, over all its connections.
    pub(crate) rate: Arc<Rate>,
}

pub(super) struct Session<I> {
    graphql: Arc<GraphQl>,
    inner: I,
    by: Handshake,
    origin: Origin,
    request_id: Option<String>,
    protocol: Protocol,
    limits: SocketLimits,
    is_initialised: bool,
    operations: HashMap<String, Open>,
    /// The number of the newest operation. A client may reuse an id, but a number is unique.
    number: u64,
    queue: Queue,
    /// Operations that were refused since the last accepted one.
    refused_in_a_row: usize,
}

/// An open operation. It ends when this is dropped.
struct Open {
    number: u64,
    _task: Task,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl<I: Inner> Session<I> {
    pub(super) fn new(
        graphql: &Arc<GraphQl>,
        inner: &I,
        by: Handshake,
        parts: &Parts,
        protocol: Protocol,
        limits: SocketLimits,
    ) -> Self {
        Self {
            origin: graphql.origin(parts).detached(),
            request_id: Named::of(&parts.headers).request_id.map(str::to_owned),
            graphql: Arc::clone(graphql),
            inner: inner.clone(),
            by,
            protocol,
            limits,
            is_initialised: false,
            operations: HashMap::new(),
            number: 0,
            queue: Queue::default(),
            refused_in_a_row: 0,
        }
    }

    pub(super) async fn run(
        mut self: Box<Self>,
        io: TokioIo<hyper::upgrade::Upgraded>,
        stop: Stop,
    ) {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(self.limits.message))
            .max_frame_size(Some(self.limits.message));
        let socket =
            WebSocketStream::from_raw_socket(Arriving::new(io), Role::Server, Some(config));
        let mut socket = Box::pin(socket).await;
        let end = self.converse(&mut socket, stop).await;
        // Operations end first, so that nothing is computed for a client that has gone.
        self.operations.clear();
        if let Some(Close(code, reason)) = end {
            // The future is boxed: the session would otherwise hold room for it as long as the connection is open.
            Box::pin(close(&mut socket, code, reason)).await;
        }
    }

    /// Runs the session. Returns how to close it, or `None` if the client closed it or has gone.
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
        let mut rate = MessageRate::of(opened);
        let mut unfinished = Unfinished::default();
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => {
                    return Some(Close(close_code::RESTART, "the server is restarting: subscribe again with `after`"));
                }
                () = &mut init_deadline, if !self.is_initialised => {
                    return Some(Close(close_code::INIT_TIMED_OUT, "Connection initialisation timeout"));
                }
                _ = ping.tick() => {
                    if last_heard.elapsed() > every * SILENT_PINGS {
                        tracing::debug!("a WebSocket fell silent");
                        return None;
                    }
                    if unfinished.is_stuck(socket.get_ref().bytes()) {
                        return Some(Close(close_code::TOO_SLOW, "a message has not ended in time"));
                    }
                    send(socket, Message::Ping(Bytes::new())).await?;
                }
                frame = socket.next() => {
                    last_heard = Instant::now();
                    // What the client sends meanwhile waits in the socket buffers.
                    if let Some(wait) = rate.wait(last_heard) {
                        tokio::time::sleep(wait).await;
                    } else if rate.messages.is_multiple_of(MESSAGES_AT_ONCE) {
                        tokio::task::yield_now().await;
                    }
                    if let Some(Ok(message)) = &frame {
                        unfinished.took(message, socket.get_ref().bytes());
                    }
                    // The futures below are boxed: the session would otherwise hold room for them as long as the
                    // connection is open.
                    let replies = match frame? {
                        Ok(Message::Text(text)) => {
                            Box::pin(self.take(text.as_bytes())).await
                        }
                        // Some clients send their text in binary messages.
                        Ok(Message::Binary(bytes)) => match std::str::from_utf8(&bytes) {
                            Ok(_) => Box::pin(self.take(&bytes)).await,
                            Err(_) => Err(Close(close_code::BAD_REQUEST, "Invalid message")),
                        },
                        Ok(Message::Close(_)) => {
                            answer_close(socket).await;
                            return None;
                        }
                        // The library already answered it when it was read (RFC 6455, section 5.5.2).
                        Ok(Message::Ping(_)) => {
                            rate.answered();
                            Ok(None)
                        }
                        Ok(_) => Ok(None),
                        Err(error) => return closed_by(&error),
                    };
                    match replies {
                        Ok(Some(reply)) => {
                            rate.answered();
                            send(socket, Message::Text(reply)).await?;
                        }
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

    /// Sends the waiting messages, several with one flush. The number is bounded: a slow reader would otherwise not be
    /// listened to for long, and would seem silent.
    async fn pass_on(&mut self, socket: &mut Socket, first: Outgoing) -> Option<()> {
        const AT_ONCE: usize = 64;
        const BYTES_AT_ONCE: usize = 64 * 1024;
        let mut next = Some(first);
        let (mut fed, mut bytes) = (0, 0);
        while let Some(one) = next {
            if let Some(message) = self.written(one) {
                bytes += message.len();
                feed(socket, message).await?;
            }
            fed += 1;
            let goes_on = fed < AT_ONCE && bytes < BYTES_AT_ONCE;
            next = goes_on.then(|| self.queue.take()).flatten();
        }
        match tokio::time::timeout(SEND_TIMEOUT, socket.flush()).await {
            Ok(Ok(())) => Some(()),
            _ => None,
        }
    }

    /// The message for the client; `None` if the client ended the operation in the meantime.
    fn written(&mut self, one: Outgoing) -> Option<Message> {
        let open = self.operations.get(one.id.as_ref())?;
        if open.number != one.number {
            return None;
        }
        let id = serde_json::Value::from(one.id.as_ref());
        Some(text(match one.what {
            What::Next(payload) => {
                let payload = String::from_utf8_lossy(&payload);
                let kind = self.protocol.next();
                // One allocation for the whole message: an event may be written for ten thousand subscribers.
                let mut message = String::with_capacity(payload.len() + one.id.len() + AROUND);
                // Writing to a `String` cannot fail.
                let _ = write!(message, r#"{{"id":{id},"type":"{kind}","payload":"#);
                message.push_str(&payload);
                message.push('}');
                message
            }
            What::Failed(errors) => {
                self.operations.remove(one.id.as_ref());
                format!(r#"{{"id":{id},"type":"error","payload":{errors}}}"#)
            }
            What::Complete => {
                self.operations.remove(one.id.as_ref());
                format!(r#"{{"id":{id},"type":"complete"}}"#)
            }
        }))
    }

    /// Handles a message from the client. Returns the immediate reply, if there is one.
    async fn take(&mut self, message: &[u8]) -> Result<Option<Utf8Bytes>, Close> {
        const INVALID: Close = Close(close_code::BAD_REQUEST, "Invalid message received");
        // The message adds one level of nesting around the request.
        check_depth(message, self.graphql.json_depth + 1)
            .map_err(|_| Close(close_code::BAD_REQUEST, "Message nests too deeply"))?;
        let said: Said<'_> = serde_json::from_slice(message).map_err(|_| INVALID)?;
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        match said.kind.as_str() {
            "connection_init" => {
                // In the older protocol a client can bring a new token only with this message.
                if self.is_initialised && self.protocol == Protocol::Transport {
                    return Err(Close(
                        close_code::TOO_MANY_INITS,
                        "Too many initialisation requests",
                    ));
                }
                if said
                    .payload
                    .is_some_and(|raw| raw.get() != "null" && !is_object(&raw))
                {
                    return Err(INVALID);
                }
                self.initialise(said.payload).await
            }
            "ping" => {
                let payload = said.payload.filter(is_object);
                Ok(Some(self.answer_ping(payload).await))
            }
            "pong" => Ok(None),
            "subscribe" | "start" if self.starts(&said.kind) => {
                if !self.is_initialised {
                    return Err(Close(close_code::UNAUTHORIZED, "Unauthorized"));
                }
                let id = said
                    .id
                    .filter(|id| !id.is_empty() && id.len() <= LONGEST_ID)
                    .ok_or(INVALID)?;
                let payload = said.payload.filter(is_object).ok_or(INVALID)?;
                let refused = self.open(id, payload).await?;
                self.refused_in_a_row = match refused {
                    Some(_) => self.refused_in_a_row + 1,
                    None => 0,
                };
                if self.refused_in_a_row > REFUSED_IN_A_ROW {
                    return Err(Close(
                        close_code::TOO_MANY_INITS,
                        "Too many operations were refused",
                    ));
                }
                Ok(refused)
            }
            "complete" | "stop" if self.ends(&said.kind) => {
                let id = said.id.ok_or(INVALID)?;
                self.operations.remove(&id);
                Ok(None)
            }
            "connection_terminate" if self.protocol == Protocol::Older => {
                Err(Close(close_code::NORMAL, ""))
            }
            _ => Err(INVALID),
        }
    }

    /// How the log identifies the session: by its handshake and by the last trace that the client named.
    fn named(&self) -> Named<'_> {
        Named {
            request_id: self.request_id.as_deref(),
            ..Named::of(self.origin.headers())
        }
    }

    fn starts(&self, kind: &str) -> bool {
        (kind == "start") == (self.protocol == Protocol::Older)
    }

    fn ends(&self, kind: &str) -> bool {
        (kind == "stop") == (self.protocol == Protocol::Older)
    }
}

fn text(message: String) -> Message {
    Message::Text(message.into())
}
