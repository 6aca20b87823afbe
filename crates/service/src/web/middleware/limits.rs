//! How large a request may be, how long its answer may take to begin, and what comes of a panic.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;

use crate::web::problem::Problem;

/// A declared length is judged before a byte is read; an undeclared one by the extractors' limit.
pub(super) fn refusal_by_length(request: &Request, limit: usize) -> Option<Problem> {
    let declared: u64 = request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    (declared > limit as u64).then(|| Problem::too_large(Some(limit)))
}

/// Limits the time until an answer begins: streams and WebSockets may go on for as long as they like. What works on an answer that
/// comes too late is dropped.
#[expect(clippy::disallowed_methods, reason = "connections are real")]
pub(super) async fn answer_in_time(
    request: Request,
    next: Next,
    limit: Duration,
) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(limit, answering).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(panic)) => Err(answer_to(panic.as_ref())),
        Err(_) => {
            tracing::warn!(
                path,
                limit_ms = limit.as_millis(),
                "a request took too long"
            );
            Err(Problem::unavailable(format!(
                "the answer took longer than {} ms; whether the request took effect is not known",
                limit.as_millis()
            )))
        }
    }
}

fn answer_to(panic: &(dyn Any + Send)) -> Problem {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a request handler panicked");
    Problem::internal()
}
