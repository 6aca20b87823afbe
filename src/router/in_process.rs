//! Calls the router behind the front door in the same process and thread. Requests reach it as values, not over a
//! connection.
//!
//! The router's parts cannot leave their thread, but the front door requires types that may. Each thread of the gateway
//! serves its own connections, so nothing ever leaves its thread. If something did, [`SendWrapper`] would panic and end
//! the process.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use hive_router::ntex::http as ntex_http;
use hive_router::ntex::http::body::{Body as RouterBody, BodySize, MessageBody, ResponseBody};
use hive_router::ntex::service::{IntoServiceFactory, Service, ServiceFactory};
use hive_router::ntex::util::Bytes as RouterBytes;
use hive_router::ntex::web::WebResponse;
use hive_router::ntex::{SharedCfg, web};
use send_wrapper::SendWrapper;
use tandem_authentication::{Access, Scope};
use tandem_front_door::graphql::OperationKind;
use tracing::Dispatch;
use tracing::dispatcher::with_default;
use tracing::instrument::WithSubscriber;

use super::sampling::{Sampler, trace_of};
use super::{recorded_trace, timed_out};

/// With this header the router reveals its plan of an operation, beside the response or instead of it. The plan shows
/// which services exist and what each one is asked.
const EXPOSE_QUERY_PLAN: &str = "hive-expose-query-plan";
/// The largest request body, in bytes. The front door has already read it within its own limit.
const LARGEST_BODY: usize = 16 * 1024 * 1024;

type Answered = Result<WebResponse, web::Error>;

/// The router's application on this thread.
#[derive(Clone)]
pub(super) struct InProcess {
    call: SendWrapper<Rc<dyn Fn(ntex_http::Request) -> LocalBoxFuture<'static, Answered>>>,
    /// Decides which traces are recorded. `None` if no trace is.
    sampler: Option<Sampler>,
}

/// The address of the client that sent a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

impl InProcess {
    /// Initializes an application.
    ///
    /// # Errors
    /// When one of its services cannot be created.
    pub(super) async fn new<R, S>(
        application: R,
        settings: SharedCfg,
        sampler: Option<Sampler>,
    ) -> anyhow::Result<Self>
    where
        R: IntoServiceFactory<S, ntex_http::Request, SharedCfg>,
        S: ServiceFactory<
                ntex_http::Request,
                SharedCfg,
                Response = WebResponse,
                Error = web::Error,
                InitError = (),
            > + 'static,
        S::Service:
            Service<ntex_http::Request, Response = WebResponse, Error = web::Error> + 'static,
    {
        let pipeline = application
            .into_factory()
            .pipeline(settings)
            .await
            .map_err(|()| anyhow::anyhow!("the gateway's routes could not be set up"))?;
        let call = Rc::new(move |request| pipeline.call_static(request).boxed_local());
        Ok(Self {
            call: SendWrapper::new(call),
            sampler,
        })
    }
}

impl tower::Service<Request<Body>> for InProcess {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = SendWrapper<LocalBoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each call waits by itself, so the service is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Rc::clone(&self.call);
        let sampler = self.sampler.as_ref();
        let unrecorded = sampler.and_then(|sampler| sampler.decide(request.headers_mut()));
        // A request that is not recorded still belongs to a trace, which this log and the services' logs name.
        let told = unrecorded
            .as_ref()
            .and_then(|_| trace_of(request.headers()));
        let later = unrecorded.clone();
        let answering = async move {
            let request = match given(request).await {
                Ok(request) => request,
                Err(error) => {
                    tracing::debug!(%error, "a body broke off");
                    return Ok(failed(StatusCode::BAD_REQUEST));
                }
            };
            let answering = timed_out::remembered(call(request));
            let (answered, trace) = recorded_trace::found(answering).await;
            Ok(match answered {
                Ok(response) => {
                    let mut response = taken(response, later);
                    if let Some(trace) = trace.or(told) {
                        response.extensions_mut().insert(trace);
                    }
                    response
                }
                Err(error) => {
                    tracing::error!(%error, "the router failed to answer");
                    failed(StatusCode::INTERNAL_SERVER_ERROR)
                }
            })
        };
        SendWrapper::new(match unrecorded {
            Some(logs) => answering.with_subscriber(logs).boxed_local(),
            None => answering.boxed_local(),
        })
    }
}

/// Converts the request to the router's type.
async fn given(request: Request<Body>) -> Result<ntex_http::Request, axum::Error> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LARGEST_BODY).await?;
    let payload = if body.is_empty() {
        ntex_http::Payload::None
    } else {
        let body = RouterBytes::copy_from_slice(&body);
        ntex_http::Payload::from_stream(futures::stream::iter([Ok(body)]))
    };
    let mut given = ntex_http::Request::with_payload(payload);
    if let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        given.extensions_mut().insert(Peer(*peer));
    }
    // The routes see from this kind that the front door has judged the request.
    if let Some(kind) = parts.extensions.get::<OperationKind>() {
        given.extensions_mut().insert(*kind);
    }
    let may_see_plans = parts
        .extensions
        .get::<Access>()
        .is_some_and(|access| access.require(Scope::Operations).is_ok());
    let head = given.head_mut();
    head.uri = parts.uri;
    head.method = parts.method;
    head.version = parts.version;
    for (name, value) in &parts.headers {
        if name == EXPOSE_QUERY_PLAN && !may_see_plans {
            continue;
        }
        head.headers.append(name.clone(), value.into());
    }
    Ok(given)
}

/// Converts the response to the front door's type. Its body may be computed while it is read; `subscriber`, if
/// given, is the tracing subscriber for that.
fn taken(response: WebResponse, subscriber: Option<Dispatch>) -> Response<Body> {
    let (mut response, _) = response.into_parts();
    let body = match response.take_body() {
        ResponseBody::Body(body) | ResponseBody::Other(body) => body,
    };
    let length = match &body {
        RouterBody::Message(message) => match message.size() {
            BodySize::Sized(length) => Some(length),
            _ => None,
        },
        _ => None,
    };
    let mut taken = Response::new(match body {
        RouterBody::None | RouterBody::Empty => Body::empty(),
        RouterBody::Bytes(bytes) => Body::from(Bytes::from_owner(bytes)),
        RouterBody::Message(message) => {
            Body::from_stream(SendWrapper::new(chunks(message, subscriber)))
        }
    });
    *taken.status_mut() = response.status();
    for (name, value) in response.headers() {
        // The server sets the length itself. A second header would be wrong after a change of the body.
        if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING {
            continue;
        }
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            taken.headers_mut().append(name.clone(), value);
        }
    }
    if let Some(length) = length {
        taken
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    taken
}

fn chunks(
    mut message: Box<dyn MessageBody>,
    subscriber: Option<Dispatch>,
) -> impl Stream<Item = Result<Bytes, io::Error>> {
    let next = move |context: &mut Context<'_>| match &subscriber {
        Some(subscriber) => with_default(subscriber, || message.poll_next_chunk(context)),
        None => message.poll_next_chunk(context),
    };
    futures::stream::poll_fn(next).map(|chunk| {
        chunk
            .map(Bytes::from_owner)
            .map_err(|error| io::Error::other(error.to_string()))
    })
}

fn failed(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_authentication::{Principal, Scopes};

    use super::*;

    #[tokio::test]
    async fn the_router_tells_its_plan_of_an_operation_to_operators_alone() {
        let bearer = |scopes| {
            Access::Bearer(Principal {
                subject: "1".into(),
                scopes: Scopes::of_claim(scopes),
                expires_at: u64::MAX,
            })
        };
        for (access, is_told) in [
            (None, false),
            (Some(Access::Anonymous), false),
            (Some(bearer("self customers:read orders:read")), false),
            (Some(bearer("operations")), true),
            (Some(Access::Open), true),
        ] {
            for mode in ["true", "dry-run"] {
                let mut request = Request::builder()
                    .header(EXPOSE_QUERY_PLAN, mode)
                    .header("x-request-id", "7")
                    .body(Body::empty())
                    .unwrap();
                let what = format!("{access:?} {mode}");
                if let Some(access) = access.clone() {
                    request.extensions_mut().insert(access);
                }
                let given = given(request).await.unwrap();
                let headers = given.headers();
                assert_eq!(headers.contains_key(EXPOSE_QUERY_PLAN), is_told, "{what}");
                assert!(headers.contains_key("x-request-id"), "{what}");
            }
        }
    }
}
