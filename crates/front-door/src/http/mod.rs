//! HTTP: connections, and the checks of each request before its content is read.
//!
//! * Connections: `connection` (time limits), `files` (how many fit).
//! * Checks: `origin` (host names and CORS), `paths`, `media`, `admission` (rates and shares), `body` (sizes).
//! * Shares of slow clients: `arriving` (bodies), `unread` (answers), `turns`, `aside` (long computations).
//! * Answers: `problem` (refusals), `notices` and `page` (headers), `serving` (requests in progress, for a crash).

pub(crate) mod admission;
pub(crate) mod arriving;
pub(crate) mod aside;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod files;
pub(crate) mod media;
pub(crate) mod notices;
pub(crate) mod origin;
pub(crate) mod page;
pub(crate) mod paths;
pub(crate) mod problem;
pub(crate) mod serving;
pub(crate) mod turns;
pub(crate) mod unread;

use axum::http::HeaderValue;

/// The header with a request's id, for logs and answers.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The longest request id that is accepted from a caller, in bytes.
const LONGEST_REQUEST_ID: usize = 128;

/// Whether a caller's request id is accepted. It appears in logs.
pub(crate) fn is_request_id(id: &HeaderValue) -> bool {
    !id.is_empty()
        && id.len() <= LONGEST_REQUEST_ID
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
}
