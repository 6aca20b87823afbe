//! Forwards operations to the inner server.
//!
//! An operation that was split into steps is forwarded as several requests. Each one waits for the answer to the one
//! before it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, header};

use super::bounded_answer::{Unread, whole, with_null};
use super::consistency;
use super::inner::{Inner, Origin};
use super::joined_answer::JoinedAnswer;
use super::operation_request::Ready;
use super::time_limit::TimeLimit;

/// The limits of a query or mutation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most bytes of the answer.
    pub(super) answer: usize,
    /// The time for all steps together; `None` for no limit.
    pub(super) time: Option<Duration>,
}

/// Forwards all steps of an operation within these limits, and joins their answers into one. After a step that fails as
/// a whole or is too late, no further step is started.
pub(super) async fn carry_out<I: Inner>(
    inner: &I,
    origin: &Origin,
    ready: &Ready,
    accept: &'static str,
    bounds: Bounds,
) -> Response<Body> {
    let most = bounds.answer;
    if ready.further.is_empty() && !origin.headers().contains_key(&consistency::HEADER) {
        let request = origin.request(ready.body.clone(), accept, ready.operation.kind);
        let answer = alone(inner, request, ready, bounds).await;
        return consistency::told(answer, None, None, most).await;
    }
    let mut origin = origin.clone();
    let ignored = consistency::read(origin.headers_mut()).err();
    let brought = origin.headers().get(&consistency::HEADER).cloned();
    let answer = carry_out_all(inner, origin, ready, accept, bounds).await;
    consistency::told(answer, brought.as_ref(), ignored, most).await
}

/// The answer to an operation that is a single request.
async fn alone<I: Inner>(
    inner: &I,
    request: Request<Body>,
    ready: &Ready,
    bounds: Bounds,
) -> Response<Body> {
    let time = TimeLimit::from_now(bounds.time);
    time.within(inner.answer(request))
        .await
        .unwrap_or_else(|late| {
            let refused = late.refused(ready.operation.kind, false);
            Response::new(Body::from(with_null(&refused)))
        })
}

async fn carry_out_all<I: Inner>(
    inner: &I,
    mut origin: Origin,
    ready: &Ready,
    accept: &'static str,
    bounds: Bounds,
) -> Response<Body> {
    let kind = ready.operation.kind;
    if ready.further.is_empty() {
        let request = origin.request(ready.body.clone(), accept, kind);
        return alone(inner, request, ready, bounds).await;
    }
    let time = TimeLimit::from_now(bounds.time);
    let mut written = Vec::new();
    let mut joined = JoinedAnswer::default();
    let mut head = None;
    let bodies = std::iter::once(&ready.body).chain(&ready.further);
    for (body, key) in bodies.zip(&ready.keys) {
        let request = origin.request(body.clone(), accept, kind);
        let step = async {
            let (parts, body) = inner.answer(request).await.into_parts();
            (parts, whole(body, bounds.answer).await)
        };
        let (parts, read) = match time.within(step).await {
            Ok(answered) => answered,
            Err(late) => {
                joined.fail(key, &late.refused(kind, true));
                break;
            }
        };
        for one in parts.headers.get_all(&consistency::HEADER) {
            written.push(one.clone());
            // The next step must see what this step wrote.
            origin
                .headers_mut()
                .append(consistency::HEADER, one.clone());
        }
        let bytes = match read {
            Ok(bytes) => Some(bytes),
            Err(Unread::TooLarge(refused)) => Some(with_null(&refused)),
            Err(Unread::BrokenOff) => None,
        };
        let is_first = head.is_none();
        let goes_on = bytes
            .as_deref()
            .is_some_and(|bytes| joined.take(bytes, key));
        if is_first && !goes_on && joined.is_refusal {
            // Nothing was executed at all. This answer explains that best.
            return Response::from_parts(parts, Body::from(bytes.unwrap_or_default()));
        }
        if bytes.is_none() {
            joined.break_off(key);
        }
        head = Some(parts);
        if !goes_on {
            break;
        }
    }
    let mut response = Response::new(Body::from(joined.written()));
    if let Some(head) = head {
        *response.headers_mut() = head.headers;
    }
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().remove(&consistency::HEADER);
    for one in written {
        response.headers_mut().append(consistency::HEADER, one);
    }
    response
}
