//! Delivers the events of a subscription to a client.
//!
//! An upstream that drops unread events is read ahead, and its events are buffered for a slower client. Beyond the
//! bound of the buffer the subscription ends and says where to resume. An upstream that waits for its reader is read at
//! the client's pace, because it has its own bound.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

mod cursor;
mod server_sent;
mod share;
mod source;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::server_sent::Parser;
use self::share::Share;
use self::source::{Ending, Source};
use super::as_asked::{as_asked, without_places_in};
use super::chosen_operation::Chosen;
use super::consistency::{self, Ignored};
use super::error::{Code, RequestError};
use crate::refusals;

/// The most events that are buffered for one subscription.
const MOST_EVENTS: usize = 8_192;
/// Upstream signals the end within this time after its last event.
const END_FOLLOWS: Duration = Duration::from_millis(50);

/// Counts the bytes that are buffered for all subscriptions.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

/// What a subscription delivers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A response, as JSON.
    Next(Bytes),
    /// The end. It has an error if the client was too slow, its token has expired, or the source of the events went
    /// away.
    End(Option<RequestError>),
    /// The end, with the errors from upstream, as JSON.
    Failed(String),
}

/// The writing end of the queue of events.
pub(super) struct Sender {
    operation: Chosen,
    events: mpsc::Sender<Bytes>,
    held: Share,
    ending: Arc<AtomicU8>,
}

/// The reading end of the queue of events.
pub(super) struct Receiver {
    source: Source,
    /// The cursor of the last event that the client got, if the client selected it.
    last: Option<Box<str>>,
    /// An event that was already read and comes out next.
    next: Option<Bytes>,
    operation: Chosen,
    /// When the subscriber's token expires.
    ends: Option<Instant>,
    /// The warning that the first event carries.
    ignored: Option<Ignored>,
    is_over: bool,
}

/// Makes a queue for the events of an operation. It ends when the subscriber's token does.
pub(super) fn queue(held: &Held, operation: Chosen, ends: Option<Instant>) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(MOST_EVENTS);
    let ending = Arc::new(AtomicU8::new(Ending::Cut as u8));
    let share = Share::of(held);
    (
        Sender {
            operation: operation.clone(),
            events: sender,
            held: share.clone(),
            ending: Arc::clone(&ending),
        },
        Receiver::of(
            Source::Queue {
                events: receiver,
                held: share,
                ending,
            },
            operation,
            ends,
        ),
    )
}

impl Sender {
    pub(super) fn operation(&self) -> &Chosen {
        &self.operation
    }

    /// Reads upstream until it ends, the client has gone, or the client is too slow.
    pub(super) async fn forward(self, mut body: Body) {
        let (mut parser, mut read) = (Parser::default(), VecDeque::new());
        loop {
            let frame = tokio::select! {
                () = self.events.closed() => return,
                frame = body.frame() => frame,
            };
            let Some(Ok(frame)) = frame else {
                return;
            };
            let Ok(chunk) = frame.into_data() else {
                continue;
            };
            parser.feed(chunk, &mut read);
            for event in read.drain(..) {
                if !self.put(event) {
                    return;
                }
            }
            if parser.is_complete {
                return self.complete();
            }
        }
    }

    /// Marks the regular end of the events.
    pub(super) fn complete(&self) {
        self.ending.store(Ending::Complete as u8, Ordering::Release);
    }

    /// Puts one event into the queue. Returns whether it accepts more.
    pub(super) fn put(&self, event: Bytes) -> bool {
        if self.held.take(event.len()) && self.events.try_send(event).is_ok() {
            return true;
        }
        if !self.events.is_closed() {
            self.ending.store(Ending::Lagged as u8, Ordering::Release);
            metrics::counter!(refusals::LAGGED).increment(1);
        }
        false
    }
}

impl Receiver {
    fn of(source: Source, operation: Chosen, ends: Option<Instant>) -> Self {
        Self {
            source,
            last: None,
            next: None,
            operation,
            ends,
            ignored: None,
            is_over: false,
        }
    }

    /// Makes the first event warn about an invalid consistency token.
    pub(super) fn warning(self, ignored: Option<Ignored>) -> Self {
        Self { ignored, ..self }
    }

    /// Reads the events of an operation from an upstream that waits for the client, until the subscriber's token
    /// expires.
    pub(super) fn of_upstream(body: Body, operation: Chosen, ends: Option<Instant>) -> Self {
        let source = Source::Upstream {
            body,
            parser: Parser::default(),
            read: VecDeque::new(),
        };
        Self::of(source, operation, ends)
    }

    /// The next event; `None` after the end. It is safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        // The token is also checked if an event is always ready.
        let received = match self.next.take() {
            _ if self.is_expired() => None,
            Some(event) => Some(event),
            None => self.receive().await,
        };
        if let Some(event) = received {
            if let Some(errors) = only_errors(&event) {
                // If upstream reports errors and then ends, both become one event. The future is boxed because each
                // subscription would otherwise hold room for it all the time.
                match Box::pin(tokio::time::timeout(END_FOLLOWS, self.receive())).await {
                    Ok(Some(next)) => self.next = Some(next),
                    Ok(None) => {
                        self.is_over = true;
                        return Some(Event::Failed(self.resumable(errors)));
                    }
                    Err(_) => {}
                }
            } else if let Some((root, Some(key))) = &self.operation.cursor {
                self.last = cursor::cursor(&event, root, key);
            }
            let event = as_asked(&self.operation, event);
            return Some(Event::Next(match self.ignored.take() {
                Some(Ignored) => consistency::warned(event),
                None => event,
            }));
        }
        self.is_over = true;
        if self.is_expired() {
            return Some(Event::End(Some(self.expired())));
        }
        Some(Event::End(match self.source.ending() {
            Ending::Lagged => Some(self.lagged()),
            Ending::Cut => Some(self.cut()),
            Ending::Complete => None,
        }))
    }

    /// Ends a subscription because the server is shutting down.
    pub(super) fn stopped(&mut self) -> Event {
        self.is_over = true;
        Event::End(Some(self.with_cursor(RequestError::new(
            axum::http::StatusCode::OK,
            Code::Unavailable,
            "stopped",
            "the server is restarting: subscribe again, with `after` to go on without a gap",
        ))))
    }

    async fn receive(&mut self) -> Option<Bytes> {
        match self.ends {
            Some(ends) => Box::pin(tokio::time::timeout_at(ends, self.source.receive()))
                .await
                .unwrap_or_default(),
            None => self.source.receive().await,
        }
    }

    /// Renders the errors of upstream. The first one gets the cursor for resuming, if it is known and not yet there.
    fn resumable(&self, mut errors: Vec<Map<String, Value>>) -> String {
        if self.operation.has_other_places {
            without_places_in(&mut errors);
        }
        if let Some(cursor) = self.cursor()
            && let Some(first) = errors.first_mut()
            && let Some(extensions) = first
                .entry("extensions")
                .or_insert_with(|| serde_json::json!({}))
                .as_object_mut()
        {
            extensions.entry("cursor").or_insert_with(|| cursor.into());
        }
        Value::from_iter(errors).to_string()
    }

    fn cut(&self) -> RequestError {
        self.with_cursor(RequestError::new(
            axum::http::StatusCode::OK,
            Code::Unavailable,
            "cut",
            "the service that tells of this went away: subscribe again, with `after` to go on without a gap",
        ))
    }

    fn is_expired(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }

    fn expired(&self) -> RequestError {
        self.with_cursor(RequestError::new(
            axum::http::StatusCode::OK,
            Code::Unauthenticated,
            "token",
            "the token has expired: subscribe again with a new one, and with `after` to go on without a gap",
        ))
    }

    fn lagged(&self) -> RequestError {
        self.with_cursor(RequestError::new(
            axum::http::StatusCode::OK,
            Code::SubscriptionLagged,
            "lagged",
            "the subscriber took events slower than they came: subscribe again with `after` to go on without a gap",
        ))
    }

    /// Adds the cursor for resuming, if it is known.
    fn with_cursor(&self, error: RequestError) -> RequestError {
        match self.cursor() {
            Some(cursor) => error.with("cursor", cursor),
            None => error,
        }
    }

    /// The cursor for resuming, if it is known.
    fn cursor(&self) -> Option<String> {
        self.last.as_deref().map(str::to_owned)
    }
}

/// The errors of a response that has no data.
fn only_errors(event: &Bytes) -> Option<Vec<Map<String, Value>>> {
    if !event.starts_with(b"{\"errors\"") && !event.starts_with(b"{\"data\":null") {
        return None;
    }
    let mut response: Map<String, Value> = serde_json::from_slice(event).ok()?;
    if response.get("data").is_some_and(|data| !data.is_null()) {
        return None;
    }
    serde_json::from_value(response.remove("errors")?).ok()
}

#[cfg(test)]
mod tests;
