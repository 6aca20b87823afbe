//! The handshake that turns a connection into a WebSocket (RFC 6455, section 4).

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::protocol::Protocol;
use super::session::{Handshake, Session};
use crate::graphql::endpoint::GraphQl;
use crate::graphql::inner::Inner;
use crate::http::media::only;
use crate::http::problem::problem;
use crate::settings::SocketLimits;
use crate::shutdown::Stop;

/// Whether a request asks for an upgrade to WebSocket.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    parts.method == Method::GET
        && has_token(&parts.headers, &header::UPGRADE, "websocket")
        && has_token(&parts.headers, &header::CONNECTION, "upgrade")
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Whether it is the base64 of 16 bytes (RFC 6455, section 4.2.1).
fn is_key(key: &[u8]) -> bool {
    let digits = key.strip_suffix(b"==").unwrap_or_default();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22 && digits.iter().all(is_digit)
}

/// Upgrades a connection to a WebSocket (RFC 6455, section 4.2).
pub(crate) fn upgrade<I: Inner>(
    graphql: &Arc<GraphQl>,
    inner: &I,
    by: Handshake,
    parts: &Parts,
    upgraded: hyper::upgrade::OnUpgrade,
    limits: SocketLimits,
    stop: &Stop,
) -> Response<Body> {
    let path = parts.uri.path();
    let version = parts.headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let mut response = problem(
            StatusCode::UPGRADE_REQUIRED,
            path,
            "WebSockets are of version 13 here",
        );
        let headers = response.headers_mut();
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    let key = only(&parts.headers, &header::SEC_WEBSOCKET_KEY);
    let Some(key) = key.filter(|key| is_key(key.as_bytes())) else {
        return problem(
            StatusCode::BAD_REQUEST,
            path,
            "a WebSocket's handshake has one `sec-websocket-key`: 16 bytes in base64",
        );
    };
    let Some(protocol) = Protocol::chosen(&parts.headers) else {
        return problem(
            StatusCode::BAD_REQUEST,
            path,
            "ask for the WebSocket subprotocol graphql-transport-ws (or the older graphql-ws)",
        );
    };
    let accept = derive_accept_key(key.as_bytes());
    // The session is boxed: the future would otherwise reserve room for it more than once.
    let session = Box::new(Session::new(graphql, inner, by, parts, protocol, limits));
    let stop = stop.clone();
    graphql
        .tasks
        .start(async move {
            match upgraded.await {
                Ok(upgraded) => session.run(TokioIo::new(upgraded), stop).await,
                Err(error) => tracing::debug!(%error, "a connection did not become a WebSocket"),
            }
        })
        .detach();

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(protocol.name()),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for wrong in [
            "",
            "x",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZWU=",
            "dGhlIHNhbXBsZSBub25jZQ!!",
            "dGhlIHNhbXBsZS-ub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZWVlZQ==",
        ] {
            assert!(!is_key(wrong.as_bytes()), "{wrong}");
        }
    }
}
