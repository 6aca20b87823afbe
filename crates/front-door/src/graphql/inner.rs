//! The one form in which operations are forwarded.
//!
//! It is a POST of JSON, with what is known about the operation in the request's extensions. The answer is JSON or, for
//! a subscription, server-sent events.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header,
};
use bytes::Bytes;
use tandem_authentication::Access;
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::prepared_operation::Kind;
use crate::http::admission::Counted;
use crate::http::turns::Turn;
use crate::runtime::Tasks;

/// The inner server, which is behind the front door. It executes operations and answers everything else.
pub trait Inner: Clone + Send + Sync + 'static {
    /// Answers a request.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

impl<S> Inner for S
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let Ok(response) = self.clone().oneshot(request).await;
        response
    }
}

/// Sets up a subscription and completes the setup even if its client has gone meanwhile. Then the answer is dropped,
/// which ends the subscription in the ordinary way. A router whose setup is cancelled halfway may leave it open
/// upstream.
///
/// Until the setup is complete the subscription is counted and keeps its turn. If its client has gone it keeps the turn
/// for a moment longer. So a client that subscribes and ends without pause waits only for its own subscriptions.
#[expect(clippy::disallowed_methods, reason = "connections are real")]
pub(super) async fn set_up<I: Inner>(
    tasks: Tasks,
    inner: &I,
    request: Request<Body>,
    counted: Counted,
    turn: Option<Turn>,
) -> Option<(Response<Body>, Counted)> {
    let (set_up, waiting) = oneshot::channel();
    let inner = inner.clone();
    tasks
        .start(async move {
            let answer = inner.answer(request).await;
            // Sending fails if the client has gone. The answer is dropped here then.
            if let Err(unwanted) = set_up.send((answer, counted)) {
                drop(unwanted);
                tokio::time::sleep(UNWANTED).await;
            }
            drop(turn);
        })
        .detach();
    waiting.await.ok()
}

/// How much longer a subscription keeps its turn if it was ended during its setup.
const UNWANTED: Duration = Duration::from_millis(100);

/// Headers about the request's own form, which changes when it is forwarded.
const OF_THE_FORM: [header::HeaderName; 21] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::ORIGIN,
    header::RANGE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_VERSION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::ACCESS_CONTROL_REQUEST_METHOD,
];

/// Says that the values of an operation's variables have the types of the schema. A request that forwards an operation
/// carries it in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct VariablesChecked;

/// What an operation inherits from the request or the connection that it came by.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl Origin {
    pub(super) fn new(path: &Arc<str>, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let mut headers = headers.clone();
        for name in &OF_THE_FORM {
            headers.remove(name);
        }
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Self {
            uri: path
                .parse()
                .unwrap_or_else(|_| Uri::from_static("/graphql")),
            headers,
            extensions: extensions.clone(),
        }
    }

    /// Copies the headers into memory of their own. The parsed ones are slices of the connection's read buffer of 8
    /// KiB. A WebSocket would hold that buffer while it is open, and there may be ten thousand of them.
    pub(super) fn detached(mut self) -> Self {
        let copies = self.headers.iter().filter_map(|(name, value)| {
            let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            copy.set_sensitive(value.is_sensitive());
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
            Some((name, copy))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in copies {
            headers.append(name, value);
        }
        self.headers = headers;
        self
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Tells the inner server that the variables of the operations are checked.
    pub(super) fn with_checked_variables(mut self) -> Self {
        self.extensions.insert(VariablesChecked);
        self
    }

    /// Sets what the operations that come from now on may do.
    pub(super) fn allow(&mut self, access: Access) {
        self.extensions.insert(access);
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The request that forwards an operation of this kind. It carries the kind, so that the inner server need not
    /// find it in the document again.
    pub(super) fn request(&self, body: Bytes, accept: &'static str, kind: Kind) -> Request<Body> {
        let mut headers = self.headers.clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        *request.extensions_mut() = self.extensions.clone();
        request.extensions_mut().insert(kind);
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_handed_on_with_its_own_kind() {
        let path: Arc<str> = "/graphql".into();
        let origin = Origin::new(&path, &HeaderMap::new(), &Extensions::new());
        for kind in [Kind::Mutation, Kind::Query] {
            let request = origin.request(Bytes::from_static(b"{}"), "application/json", kind);
            assert_eq!(request.extensions().get::<Kind>(), Some(&kind));
        }
    }
}
