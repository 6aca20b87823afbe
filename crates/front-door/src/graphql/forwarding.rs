//! Operations handed on to what stands behind: one that has steps as several requests, each when the one before it is answered.

use axum::body::Body;
use axum::http::{Response, header};

use super::bounded_answer::{Unread, whole, with_null};
use super::consistency;
use super::inner::{Inner, Origin};
use super::joined_answer::JoinedAnswer;
use super::operation_request::Ready;

/// Hands an operation on, as often as it has steps, and makes one answer of theirs, each of at most `most` bytes. Behind a step that
/// fails as a whole none is begun.
pub(super) async fn carry_out<I: Inner>(
    inner: &I,
    origin: &Origin,
    ready: &Ready,
    accept: &'static str,
    most: usize,
) -> Response<Body> {
    if ready.further.is_empty() && !origin.headers().contains_key(&consistency::HEADER) {
        let request = origin.request(ready.body.clone(), accept, ready.operation.kind);
        return consistency::told(inner.answer(request).await, None, None, most).await;
    }
    let mut origin = origin.clone();
    let ignored = consistency::read(origin.headers_mut()).err();
    let brought = origin.headers().get(&consistency::HEADER).cloned();
    let answer = carry_out_all(inner, origin, ready, accept, most).await;
    consistency::told(answer, brought.as_ref(), ignored, most).await
}

async fn carry_out_all<I: Inner>(
    inner: &I,
    mut origin: Origin,
    ready: &Ready,
    accept: &'static str,
    most: usize,
) -> Response<Body> {
    if ready.further.is_empty() {
        return inner
            .answer(origin.request(ready.body.clone(), accept, ready.operation.kind))
            .await;
    }
    let mut written = Vec::new();
    let mut joined = JoinedAnswer::default();
    let mut head = None;
    let bodies = std::iter::once(&ready.body).chain(&ready.further);
    for (body, key) in bodies.zip(&ready.keys) {
        let answer = inner
            .answer(origin.request(body.clone(), accept, ready.operation.kind))
            .await;
        let (parts, body) = answer.into_parts();
        for one in parts.headers.get_all(&consistency::HEADER) {
            written.push(one.clone());
            // The next step sees what this one wrote.
            origin
                .headers_mut()
                .append(consistency::HEADER, one.clone());
        }
        let bytes = match whole(body, most).await {
            Ok(bytes) => Some(bytes),
            Err(Unread::TooLarge(refused)) => Some(with_null(&refused)),
            Err(Unread::BrokenOff) => None,
        };
        let is_first = head.is_none();
        let goes_on = bytes
            .as_deref()
            .is_some_and(|bytes| joined.take(bytes, key));
        if is_first && !goes_on && joined.is_refusal {
            // Nothing was carried out at all: it says so best itself.
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
