//! Endless answers over HTTP: server-sent events (graphql-sse, distinct connections mode) and multipart (Apollo's
//! multipart protocol, incremental delivery).
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use futures::stream;

use super::error::Refused;
use super::events::{Event, Receiver};
use super::negotiation::Format;
use crate::http::admission::Counted;
use crate::runtime::Task;
use crate::shutdown::Stop;

/// How often a heartbeat is sent if there are no events, so that proxies keep the connection open.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A stream with one response as its only event, and the end.
pub(super) fn single_event(response: Bytes) -> Response<Body> {
    let text = [sse_event(&response), Bytes::from_static(SSE_END)].concat();
    with_headers(Body::from(text), Format::EventStream)
}

/// Streams the events of a subscription. `task` reads them from upstream, and ends with the stream.
pub(super) fn response(
    receiver: Receiver,
    format: Format,
    task: Option<Task>,
    counted: Counted,
    stop: Stop,
) -> Response<Body> {
    let writer = Writer {
        receiver,
        format,
        begun: false,
        over: false,
        stop,
        _task: task,
        _counted: counted,
    };
    let chunks = stream::unfold(writer, |mut writer| async move {
        let chunk = writer.next().await?;
        Some((Ok::<_, Infallible>(chunk), writer))
    });
    with_headers(Body::from_stream(chunks), format)
}

fn with_headers(body: Body, format: Format) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer answers would delay events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Writer {
    receiver: Receiver,
    format: Format,
    begun: bool,
    over: bool,
    stop: Stop,
    _task: Option<Task>,
    _counted: Counted,
}

/// The end has a data field, though it is empty: browsers drop events without one.
const SSE_END: &[u8] = b"event: complete\ndata: \n\n";

impl Writer {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if !self.begun {
            self.begun = true;
            // The client learns at once that it is subscribed.
            return Some(match self.format {
                Format::MultipartSubscription => Bytes::from_static(b"\r\n--graphql"),
                Format::Multipart => Bytes::from_static(b"\r\n---"),
                _ => Bytes::from_static(b":\n\n"),
            });
        }
        let (stop, receiver) = (&self.stop, &mut self.receiver);
        let next = tokio::select! {
            biased;
            () = stop.requested() => None,
            next = tokio::time::timeout(HEARTBEAT, receiver.next()) => Some(next),
        };
        match next.unwrap_or_else(|| Ok(Some(self.receiver.stopped()))) {
            Err(_) => Some(self.heartbeat()),
            Ok(Some(Event::Next(response))) => Some(self.event(&response)),
            Ok(Some(Event::End(error))) => {
                self.over = true;
                Some(self.end(error.map(|error| Refused::from(error).body())))
            }
            Ok(Some(Event::Failed(errors))) => {
                self.over = true;
                Some(self.end(Some(format!("{{\"errors\":{errors}}}").into_bytes())))
            }
            Ok(None) => None,
        }
    }

    fn heartbeat(&self) -> Bytes {
        match self.format {
            Format::MultipartSubscription => part(b"{}", b"graphql"),
            // An empty part would be an empty response. This part only says that more will follow.
            Format::Multipart => Bytes::from_static(
                b"\r\ncontent-type: application/json\r\n\r\n{\"hasNext\":true}\r\n---",
            ),
            _ => Bytes::from_static(b":\n\n"),
        }
    }

    fn event(&self, response: &[u8]) -> Bytes {
        match self.format {
            Format::MultipartSubscription => {
                part(&[b"{\"payload\":", response, b"}"].concat(), b"graphql")
            }
            Format::Multipart => part(response, b"-"),
            _ => sse_event(response),
        }
    }

    fn end(&self, response: Option<Vec<u8>>) -> Bytes {
        let mut text = response
            .map(|response| self.event(&response).to_vec())
            .unwrap_or_default();
        text.extend_from_slice(match self.format {
            Format::MultipartSubscription | Format::Multipart => b"--\r\n",
            _ => SSE_END,
        });
        text.into()
    }
}

fn sse_event(response: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(response.len() + 24);
    text.extend_from_slice(b"event: next\n");
    for line in response.split(|byte| *byte == b'\n') {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.into()
}

/// A part and the boundary after it. A client sees the end of a part only when the next boundary arrives.
fn part(json: &[u8], boundary: &[u8]) -> Bytes {
    [
        b"\r\ncontent-type: application/json\r\n\r\n",
        json,
        b"\r\n--",
        boundary,
    ]
    .concat()
    .into()
}
