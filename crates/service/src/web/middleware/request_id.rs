//! The id of a request, for logs and answers.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};

/// The header with the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is accepted from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Keeps the caller's request id, or generates one.
#[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
pub(super) fn name(request: &mut Request) -> Option<HeaderValue> {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| {
            !id.is_empty()
                && id.len() <= MAX_REQUEST_ID
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .cloned();
    let id = given.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).ok())?;
    request.headers_mut().insert(REQUEST_ID, id.clone());
    Some(id)
}
