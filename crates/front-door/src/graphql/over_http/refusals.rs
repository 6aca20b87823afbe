//! The answers that replace an operation's answer over HTTP, in a format that the client can read.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;

use crate::graphql::endpoint::GraphQl;
use crate::graphql::error::{Code, Refused, RequestError};
use crate::graphql::negotiation::{self, Format};
use crate::graphql::prepared_operation::Kind;
use crate::graphql::streams;
use crate::graphql::telemetry::Named;
use crate::http::media::MediaRange;
use crate::http::problem::retry_after;

/// The methods that the endpoint accepts.
const METHODS: &str = "GET, HEAD, POST";

impl GraphQl {
    pub(super) fn refuse(
        &self,
        parts: &Parts,
        accepted: Option<&[MediaRange]>,
        refused: &Refused,
    ) -> Response<Body> {
        self.log_refusal(refused, Named::of(&parts.headers));
        // A client that accepts only events learns from an event what is wrong with its document (graphql-sse).
        let format = negotiation::choose(accepted, Kind::Query);
        if format == Some(Format::EventStream) && refused.status(false) == StatusCode::OK {
            return streams::single_event(Bytes::from(refused.body()));
        }
        let is_own = negotiation::wants_own_json(accepted);
        let mut response = json(
            refused.status(is_own),
            if is_own {
                Format::OwnJson
            } else {
                Format::Json
            },
            Bytes::from(refused.body()),
        );
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        if let Some(seconds) = refused.retry_after() {
            retry_after(&mut response, seconds);
        }
        response
    }
}

pub(super) fn json(status: StatusCode, format: Format, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    response
}

pub(super) fn unreadable_answer(format: Format) -> Response<Body> {
    let refused: Refused = RequestError::new(
        StatusCode::BAD_GATEWAY,
        Code::Unavailable,
        "answer",
        "the answer broke off",
    )
    .into();
    json(StatusCode::BAD_GATEWAY, format, refused.body().into())
}

/// Whether a request belongs to the single connection mode of graphql-sse: it carries the token that such a client gets
/// in answer to a PUT.
pub(super) fn is_of_single_connection(parts: &Parts) -> bool {
    let has = |name: &str| {
        let query = parts.uri.query().unwrap_or_default();
        let mut members = query
            .split('&')
            .filter_map(|member| member.split('=').next());
        members.any(|member| member == name)
    };
    parts.headers.contains_key("x-graphql-event-stream-token")
        || parts.method == Method::GET && has("token") && !has("query") && !has("extensions")
}

pub(super) fn single_connection_refused(status: StatusCode) -> Refused {
    RequestError::new(
        status,
        Code::BadUserInput,
        "single_connection",
        "the single connection mode of graphql-sse is not spoken here: use its distinct connections mode, a request with `accept: text/event-stream` for each subscription",
    )
    .into()
}

pub(super) fn method_not_allowed(method: &Method) -> Response<Body> {
    let refused: Refused = if method == Method::PUT {
        single_connection_refused(StatusCode::METHOD_NOT_ALLOWED)
    } else {
        RequestError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::BadUserInput,
            "method",
            "send GraphQL with POST, or a query with GET",
        )
        .into()
    };
    let mut response = if method == Method::OPTIONS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        json(
            StatusCode::METHOD_NOT_ALLOWED,
            Format::Json,
            refused.body().into(),
        )
    };
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

pub(super) fn not_acceptable(kind: Kind) -> Response<Body> {
    let message = match kind {
        Kind::Subscription => {
            "a subscription is answered with `accept: text/event-stream` or `accept: multipart/mixed;subscriptionSpec=\"1.0\"`, or over a WebSocket"
        }
        _ => {
            "answers are `application/graphql-response+json` or `application/json`: accept one of them"
        }
    };
    let refused: Refused = RequestError::new(
        StatusCode::NOT_ACCEPTABLE,
        Code::BadUserInput,
        "accept",
        message,
    )
    .into();
    json(
        StatusCode::NOT_ACCEPTABLE,
        Format::Json,
        refused.body().into(),
    )
}
