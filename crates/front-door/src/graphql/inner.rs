//! The one form in which operations are handed on: a POST of JSON, with what is known of the operation among its extensions, answered with
//! JSON or, for a subscription, with server-sent events.

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

/// What carries operations out, and answers everything else.
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

/// Lets a subscription be set up to its end, also when nobody waits for it any more: then it is ended in the ordinary way, by dropping
/// the answer. Routers that are stopped half way may leave it open upstream. It is counted until then, and keeps its turn; what nobody waits for any more
/// keeps it for a moment longer, so that whoever subscribes and ends without pause waits for their own.
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
            // Nobody waits if it fails: then the answer is dropped here.
            if let Err(unwanted) = set_up.send((answer, counted)) {
                drop(unwanted);
                tokio::time::sleep(UNWANTED).await;
            }
            drop(turn);
        })
        .detach();
    waiting.await.ok()
}

/// How much longer a subscription keeps its turn that was ended while it was set up.
const UNWANTED: Duration = Duration::from_millis(100);

/// Headers that say something of a request's own form, which changes on the way.
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

/// What an operation takes along of the request or the connection that it came by.
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

    /// The same with headers of its own. As they come, names and values are parts of what was read of the connection, 8 KiB, which would be held
    /// for as long as a WebSocket is open: ten thousand may be.
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

    /// What operations may do from now on.
    pub(super) fn allow(&mut self, access: Access) {
        self.extensions.insert(access);
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The request that hands an operation of this kind on. The kind goes with it: who carries it out need not look for it in the document again.
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
