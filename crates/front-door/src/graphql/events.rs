//! Events of a subscription on their way to a client. What upstream drops when nobody takes it is read ahead and held for a client that
//! reads slower, within a bound; beyond it the subscription ends with a word about where to go on. An upstream that waits is read at the
//! client's pace, and has a bound of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::document::Chosen;
use super::error::{Code, RequestError};

/// The most that is held for one subscription.
const MOST_BYTES: usize = 2 * 1024 * 1024;
const MOST_EVENTS: usize = 8_192;
/// The most that is held for all subscriptions of the process, in bytes.
const MOST_OF_ALL: usize = 256 * 1024 * 1024;
/// The longest single event, in bytes.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;
/// Within this time behind its last event upstream says that there are no more.
const END_FOLLOWS: Duration = Duration::from_millis(50);

/// Bytes that are held for all subscriptions.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

/// What comes out of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A response, as JSON.
    Next(Bytes),
    /// The end; with an error if the client was too slow, its token has expired, or what tells the events went away.
    End(Option<RequestError>),
    /// The end, with the errors that upstream ended it with, as JSON.
    Failed(String),
}

/// How events end. What was not said to be complete is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Ending {
    /// They broke off.
    Cut,
    /// Upstream said that there are no more.
    Complete,
    /// The client was too slow.
    Lagged,
}

impl Ending {
    fn of(number: u8) -> Self {
        [Self::Complete, Self::Lagged]
            .into_iter()
            .find(|ending| *ending as u8 == number)
            .unwrap_or(Self::Cut)
    }
}

/// Where events are put.
pub(super) struct Sender {
    operation: Chosen,
    events: mpsc::Sender<Bytes>,
    held: Share,
    ending: Arc<AtomicU8>,
}

/// Where they come from.
enum Source {
    /// Read ahead.
    Queue {
        events: mpsc::Receiver<Bytes>,
        held: Share,
        ending: Arc<AtomicU8>,
    },
    /// Read when the client has taken what came before.
    Upstream {
        body: Body,
        parser: Parser,
        read: VecDeque<Bytes>,
    },
}

/// Where they are taken out.
pub(super) struct Receiver {
    source: Source,
    last: Option<Bytes>,
    /// What was taken out already and is to be handed out next.
    next: Option<Bytes>,
    operation: Chosen,
    /// When the subscriber's token ends.
    ends: Option<Instant>,
    is_over: bool,
}

/// What one subscription holds; given back when it ends.
#[derive(Clone)]
struct Share(Arc<Of>);

struct Of {
    own: AtomicUsize,
    all: Held,
}

impl Share {
    fn take(&self, bytes: usize) -> bool {
        let own = self.0.own.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.0.all.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // One event is always taken: it is larger than the bound, or the others hold all.
        own <= MOST_BYTES.max(bytes) && (all <= MOST_OF_ALL || own == bytes)
    }

    fn give_back(&self, bytes: usize) {
        self.0.own.fetch_sub(bytes, Ordering::Relaxed);
        self.0.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Of {
    fn drop(&mut self) {
        self.all
            .0
            .fetch_sub(self.own.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A queue for the events of an operation, which ends when the subscriber's token does.
pub(super) fn queue(held: &Held, operation: Chosen, ends: Option<Instant>) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(MOST_EVENTS);
    let ending = Arc::new(AtomicU8::new(Ending::Cut as u8));
    let share = Share(Arc::new(Of {
        own: AtomicUsize::new(0),
        all: held.clone(),
    }));
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

    /// Takes what upstream sends until it ends, the client is gone, or too slow.
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

    /// There are no more, and that is right so.
    pub(super) fn complete(&self) {
        self.ending.store(Ending::Complete as u8, Ordering::Release);
    }

    /// Puts one event; answers whether there may be more.
    pub(super) fn put(&self, event: Bytes) -> bool {
        if self.held.take(event.len()) && self.events.try_send(event).is_ok() {
            return true;
        }
        if !self.events.is_closed() {
            self.ending.store(Ending::Lagged as u8, Ordering::Release);
            metrics::counter!("front_door_lagged_subscriptions_total").increment(1);
        }
        false
    }
}

impl Source {
    /// The next event, or the end. Safe to cancel.
    async fn receive(&mut self) -> Option<Bytes> {
        match self {
            Self::Queue { events, held, .. } => {
                let event = events.recv().await?;
                held.give_back(event.len());
                Some(event)
            }
            Self::Upstream { body, parser, read } => loop {
                if let Some(event) = read.pop_front() {
                    return Some(event);
                }
                if parser.is_complete {
                    return None;
                }
                if let Ok(chunk) = body.frame().await?.ok()?.into_data() {
                    parser.feed(chunk, read);
                }
            },
        }
    }

    fn ending(&self) -> Ending {
        match self {
            Self::Queue { ending, .. } => Ending::of(ending.load(Ordering::Acquire)),
            Self::Upstream { parser, .. } if parser.is_complete => Ending::Complete,
            Self::Upstream { .. } => Ending::Cut,
        }
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
            is_over: false,
        }
    }

    /// The events of an operation whose upstream waits for the client, until the subscriber's token ends.
    pub(super) fn of_upstream(body: Body, operation: Chosen, ends: Option<Instant>) -> Self {
        let source = Source::Upstream {
            body,
            parser: Parser::default(),
            read: VecDeque::new(),
        };
        Self::of(source, operation, ends)
    }

    /// The next event; `None` behind the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        // Also where events come so fast that there is always one.
        let received = match self.next.take() {
            _ if self.is_expired() => None,
            Some(event) => Some(event),
            None => self.receive().await,
        };
        if let Some(event) = received {
            if let Some(errors) = only_errors(&event) {
                // Where upstream says what is wrong and ends, the two are one. Room for this would be held by each subscription for all its time.
                match Box::pin(tokio::time::timeout(END_FOLLOWS, self.receive())).await {
                    Ok(Some(next)) => self.next = Some(next),
                    Ok(None) => {
                        self.is_over = true;
                        return Some(Event::Failed(self.resumable(errors)));
                    }
                    Err(_) => {}
                }
            } else if self.operation.cursor.is_some() {
                self.last = Some(event.clone());
            }
            return Some(Event::Next(event));
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

    /// The end of a subscription whose server is told to stop.
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

    /// Errors of upstream, with where to go on in the first, if that is known and not said.
    fn resumable(&self, mut errors: Vec<serde_json::Value>) -> String {
        if let Some(cursor) = self.cursor()
            && let Some(first) = errors
                .first_mut()
                .and_then(serde_json::Value::as_object_mut)
            && let Some(extensions) = first
                .entry("extensions")
                .or_insert_with(|| serde_json::json!({}))
                .as_object_mut()
        {
            extensions.entry("cursor").or_insert_with(|| cursor.into());
        }
        serde_json::Value::from(errors).to_string()
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

    /// With where to go on, if that is known.
    fn with_cursor(&self, error: RequestError) -> RequestError {
        match self.cursor() {
            Some(cursor) => error.with("cursor", cursor),
            None => error,
        }
    }

    /// The cursor of the last event that the client got, if it selected it.
    fn cursor(&self) -> Option<String> {
        let (root, cursor) = self.operation.cursor.as_ref()?;
        let last: serde_json::Value = serde_json::from_slice(self.last.as_ref()?).ok()?;
        Some(
            last["data"][root.as_str()][cursor.as_deref()?]
                .as_str()?
                .to_owned(),
        )
    }
}

/// The errors of a response that has nothing else.
fn only_errors(event: &Bytes) -> Option<Vec<serde_json::Value>> {
    if !event.starts_with(b"{\"errors\"") && !event.starts_with(b"{\"data\":null") {
        return None;
    }
    let mut response: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(event).ok()?;
    if response.get("data").is_some_and(|data| !data.is_null()) {
        return None;
    }
    match response.remove("errors")? {
        serde_json::Value::Array(errors) => Some(errors),
        _ => None,
    }
}

/// Reads server-sent events (HTML, section 9.2): the data of each, without comments.
#[derive(Default)]
struct Parser {
    rest: BytesMut,
    is_complete: bool,
}

impl Parser {
    fn feed(&mut self, chunk: Bytes, events: &mut VecDeque<Bytes>) {
        if self.rest.is_empty()
            && let Some(one) = single(&chunk)
        {
            return self.take(one, events);
        }
        self.rest.extend_from_slice(&chunk);
        while let Some(end) = memchr::memmem::find(&self.rest, b"\n\n") {
            let block = self.rest.split_to(end + 2).freeze();
            self.take(block, events);
        }
        if self.rest.is_empty() {
            // What was read into it goes with its events.
            self.rest = BytesMut::new();
        }
        if self.rest.len() > LONGEST_EVENT {
            self.is_complete = true;
        }
    }

    fn take(&mut self, block: Bytes, events: &mut VecDeque<Bytes>) {
        let mut data: Option<Bytes> = None;
        let mut begin = 0;
        for line in block.split(|byte| *byte == b'\n') {
            let (at, end) = (begin, begin + line.len());
            begin = end + 1;
            if line == b"event: complete" {
                self.is_complete = true;
            } else if let Some(value) = line.strip_prefix(b"data:") {
                let skipped = 5 + usize::from(value.first() == Some(&b' '));
                let part = block.slice((at + skipped).min(end)..end);
                data = Some(match data {
                    None => part,
                    Some(before) => [before.as_ref(), b"\n", part.as_ref()].concat().into(),
                });
            }
        }
        if !self.is_complete {
            events.extend(data.filter(|data| !data.is_empty()));
        }
    }
}

/// The chunk, if it is one whole event.
fn single(chunk: &Bytes) -> Option<Bytes> {
    (memchr::memmem::find(chunk, b"\n\n")? + 2 == chunk.len()).then(|| chunk.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::document::{DocumentLimits, Documents, Treatment};
    use futures::StreamExt;

    use super::super::schema::GraphSchema;
    use super::*;

    fn operation() -> Chosen {
        let schema =
            GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql")).unwrap();
        Documents::new(
            Some(schema),
            DocumentLimits::default(),
            Treatment::default(),
        )
        .operation("subscription{u:orderUpdated{at:cursor}}", None)
        .unwrap()
    }

    fn event(cursor: usize, padding: usize) -> Bytes {
        format!(
            r#"{{"data":{{"u":{{"at":"{cursor}"}}}},"x":"{}"}}"#,
            "x".repeat(padding)
        )
        .into()
    }

    async fn rest(receiver: &mut Receiver) -> (usize, Option<RequestError>) {
        let mut count = 0;
        loop {
            match receiver.next().await.unwrap() {
                Event::Next(_) => count += 1,
                Event::End(error) => return (count, error),
                Event::Failed(errors) => panic!("{errors}"),
            }
        }
    }

    #[tokio::test]
    async fn events_are_read_however_the_stream_is_cut() {
        let stream = "event: next\ndata: {\"a\":1}\n\n:\n\nevent: next\ndata: {\"b\":\ndata: 2}\n\nevent: complete\ndata:\n\ndata: {\"c\":3}\n\n";
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let mut events = VecDeque::new();
            for chunk in stream.as_bytes().chunks(size) {
                parser.feed(Bytes::copy_from_slice(chunk), &mut events);
            }
            assert_eq!(events, ["{\"a\":1}", "{\"b\":\n2}"], "{size}");
            assert!(parser.is_complete);
        }
    }

    /// An upstream that counts how often it was asked.
    fn upstream(chunks: &[&'static str], asked: &Arc<AtomicUsize>) -> Body {
        let asked = Arc::clone(asked);
        let chunks: Vec<&'static str> = chunks.to_vec();
        Body::from_stream(futures::stream::iter(chunks).map(move |chunk| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk.as_bytes()))
        }))
    }

    #[tokio::test]
    async fn an_upstream_that_waits_is_read_at_the_clients_pace_and_its_end_is_told_as_it_was() {
        const NEXT: &str = "event: next\ndata: {\"data\":{\"u\":{\"at\":\"5\"}}}\n\n";
        let asked = Arc::new(AtomicUsize::new(0));
        let complete = [NEXT, NEXT, "event: complete\ndata: \n\n"];
        for (chunks, code) in [
            (&complete[..], None),
            (&complete[..2], Some(Code::Unavailable)),
        ] {
            asked.store(0, Ordering::Relaxed);
            let body = upstream(chunks, &asked);
            let mut receiver = Receiver::of_upstream(body, operation(), None);
            assert!(matches!(receiver.next().await, Some(Event::Next(_))));
            assert_eq!(asked.load(Ordering::Relaxed), 1);
            let (got, error) = rest(&mut receiver).await;
            assert_eq!((got, error.as_ref().map(RequestError::code)), (1, code));
            if let Some(error) = error {
                let refused: super::super::error::Refused = error.into();
                assert_eq!(refused.errors()[0]["extensions"]["cursor"], "5");
            }
            assert_eq!(receiver.next().await, None);
        }
    }

    #[tokio::test]
    async fn who_reads_in_time_gets_all_and_an_end() {
        let held = Held::default();
        let (sender, mut receiver) = queue(&held, operation(), None);
        for number in 0..100 {
            assert!(sender.put(event(number, 10)));
        }
        sender.complete();
        drop(sender);
        assert_eq!(rest(&mut receiver).await, (100, None));
        assert_eq!(receiver.next().await, None);
        assert_eq!(held.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_ends_with_its_token_however_fast_events_come_and_says_where_to_go_on() {
        for is_busy in [false, true] {
            let ends = Instant::now() + Duration::from_secs(60);
            let (sender, mut receiver) = queue(&Held::default(), operation(), Some(ends));
            assert!(sender.put(event(1, 0)));
            assert_eq!(receiver.next().await, Some(Event::Next(event(1, 0))));
            if is_busy {
                tokio::time::advance(Duration::from_secs(61)).await;
                assert!(sender.put(event(2, 0)));
            }
            let Some(Event::End(Some(error))) = receiver.next().await else {
                panic!("it did not end with an error");
            };
            assert_eq!(error.code(), Code::Unauthenticated);
            let refused: super::super::error::Refused = error.into();
            assert_eq!(refused.errors()[0]["extensions"]["cursor"], "1");
            assert_eq!(receiver.next().await, None);
        }
    }

    #[tokio::test]
    async fn what_breaks_off_never_looks_complete_and_says_where_to_go_on() {
        let (sender, mut receiver) = queue(&Held::default(), operation(), None);
        assert!(sender.put(event(7, 0)));
        drop(sender);
        let (got, error) = rest(&mut receiver).await;
        let error = error.unwrap();
        assert_eq!((got, error.code()), (1, Code::Unavailable));
        let refused: super::super::error::Refused = error.into();
        assert_eq!(refused.errors()[0]["extensions"]["cursor"], "7");
    }

    #[tokio::test]
    async fn errors_that_upstream_ends_with_end_it_and_others_do_not() {
        let errors =
            Bytes::from(r#"{"errors":[{"message":"x","extensions":{"code":"UNAVAILABLE"}}]}"#);
        let (sender, mut receiver) = queue(&Held::default(), operation(), None);
        for one in [event(1, 0), errors.clone(), event(2, 0), errors.clone()] {
            assert!(sender.put(one));
        }
        sender.complete();
        drop(sender);
        for one in [event(1, 0), errors, event(2, 0)] {
            assert_eq!(receiver.next().await, Some(Event::Next(one)));
        }
        let Some(Event::Failed(errors)) = receiver.next().await else {
            panic!("it did not end with errors");
        };
        let errors: serde_json::Value = serde_json::from_str(&errors).unwrap();
        assert_eq!(errors[0]["extensions"]["cursor"], "2");
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn who_reads_too_slowly_learns_where_to_go_on() {
        for (padding, most) in [(0, MOST_EVENTS), (MOST_BYTES / 10, 10)] {
            let (sender, mut receiver) = queue(&Held::default(), operation(), None);
            let put = (0..2 * MOST_EVENTS)
                .take_while(|number| sender.put(event(*number, padding)))
                .count();
            assert!(put <= most && put >= most - 1);
            drop(sender);
            let (got, error) = rest(&mut receiver).await;
            assert_eq!(got, put);
            let error = error.unwrap();
            assert_eq!(error.code(), Code::SubscriptionLagged);
            let refused: super::super::error::Refused = error.into();
            assert_eq!(
                refused.errors()[0]["extensions"]["cursor"],
                (put - 1).to_string()
            );
        }
    }

    #[tokio::test]
    async fn what_is_held_for_all_has_a_bound_and_is_given_back() {
        let held = Held::default();
        let mut open = Vec::new();
        while held.0.load(Ordering::Relaxed) < MOST_OF_ALL {
            let (sender, receiver) = queue(&held, operation(), None);
            assert!(sender.put(event(0, MOST_BYTES / 2)));
            sender.put(event(1, MOST_BYTES / 4));
            open.push((sender, receiver));
        }
        let (sender, _receiver) = queue(&held, operation(), None);
        assert!(sender.put(event(0, 10)));
        assert!(!sender.put(event(1, 10)));
        open.clear();
        assert!(held.0.load(Ordering::Relaxed) < 1_000);
    }
}
