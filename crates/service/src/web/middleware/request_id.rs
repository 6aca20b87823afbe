//! The id that names a request, in logs and in answers.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};

/// The header that names a request, in logs and in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Takes the caller's request id over, or makes one.
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
