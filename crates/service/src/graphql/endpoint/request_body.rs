//! Reads the body of a request: one GraphQL request in JSON.

use async_graphql::Request;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

/// The request in a body. The error is the status and message for the client.
pub(super) fn read(body: Result<Bytes, BytesRejection>) -> Result<Request, (StatusCode, String)> {
    match body {
        Ok(body) => read_request(&body).map_err(|message| (StatusCode::BAD_REQUEST, message)),
        Err(rejection) => {
            let message = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "the request is larger than what is taken",
                _ => "the request could not be read to its end",
            };
            Err((rejection.status(), message.into()))
        }
    }
}

/// Reads one request in JSON. Batches are refused, because a batch would multiply every limit.
fn read_request(body: &[u8]) -> Result<Request, String> {
    match body.trim_ascii_start().first() {
        None => return Err("the body is empty; send {\"query\": …, \"variables\": …}".into()),
        Some(b'[') => {
            return Err("batches are not taken; send one request, {\"query\": …}".into());
        }
        Some(_) => {}
    }
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| format!("the body is no GraphQL request in JSON: {error}"))?;
    if request.query.trim().is_empty() {
        return Err("`query` is missing or empty".into());
    }
    Ok(request)
}
