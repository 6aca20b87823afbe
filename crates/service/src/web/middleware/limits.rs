//! Limits on the size of a request and on the time until its answer begins, and the answer after a panic.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;

use crate::web::problem::Problem;

/// Checks a declared length before a byte is read. For an undeclared length the extractors' limit applies.
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

/// Limits the time until an answer begins. Streams and WebSockets may last longer. A handler that exceeds the limit is
/// dropped.
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
