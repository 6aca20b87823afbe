//! HTTP methods on the gateway's port: HEAD is answered wherever GET is (RFC 9110, 9.3.2), and a 405 names the allowed
//! methods (15.5.6).

use std::error::Error;
use std::rc::Rc;
use std::task::{Context, Poll};

use hive_router::ntex::http::body::{Body, BodySize, MessageBody, ResponseBody};
use hive_router::ntex::http::header::{ALLOW, HeaderValue};
use hive_router::ntex::http::{Method, StatusCode};
use hive_router::ntex::service::{Service, ServiceCtx};
use hive_router::ntex::util::Bytes;
use hive_router::ntex::web::{
    DefaultError, Error as WebError, HttpRequest, WebRequest, WebResponse,
};
use hive_router::ntex::{Middleware, SharedCfg, forward_ready};

use super::problem::method_not_allowed;

/// The methods of a path that can only be read.
pub(super) const READ: &str = "GET, HEAD";
/// The methods of the GraphQL path.
const GRAPHQL: &str = "GET, HEAD, POST";

/// Marks a request that arrived as HEAD and is handled as GET.
struct CameAsHead;

/// Whether a request arrived as HEAD. Handlers can then save the work for a body that is not sent.
pub(super) fn came_as_head(request: &HttpRequest) -> bool {
    request.extensions().contains::<CameAsHead>()
}

/// The middleware. It must be the outermost one, because the others change an answer's headers.
#[derive(Debug, Clone)]
pub(super) struct Methods {
    /// The path that also accepts POST.
    pub(super) graphql_path: String,
}

impl<S> Middleware<S, SharedCfg> for Methods {
    type Service = MethodsService<S>;

    fn create(&self, service: S, _: SharedCfg) -> Self::Service {
        MethodsService {
            service,
            graphql_path: self.graphql_path.clone(),
        }
    }
}

/// The service that [`Methods`] wraps around another one.
pub(super) struct MethodsService<S> {
    service: S,
    graphql_path: String,
}

impl<S> Service<WebRequest<DefaultError>> for MethodsService<S>
where
    S: Service<WebRequest<DefaultError>, Response = WebResponse, Error = WebError>,
{
    type Response = WebResponse;
    type Error = S::Error;

    forward_ready!(service);

    async fn call(
        &self,
        mut request: WebRequest<DefaultError>,
        context: ServiceCtx<'_, Self>,
    ) -> Result<Self::Response, Self::Error> {
        let is_head = request.method() == Method::HEAD;
        if is_head {
            request.head_mut().method = Method::GET;
            request.extensions_mut().insert(CameAsHead);
        }
        let response = context.call(&self.service, request).await?;
        let response = if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            self.explained(response)
        } else {
            response
        };
        Ok(if is_head {
            without_body(response)
        } else {
            response
        })
    }
}

impl<S> MethodsService<S> {
    /// A 405 with the allowed methods, and with a message if it has none.
    fn explained(&self, mut response: WebResponse) -> WebResponse {
        if response.headers().contains_key(ALLOW) {
            return response;
        }
        let takes = if response.request().path() == self.graphql_path {
            GRAPHQL
        } else {
            READ
        };
        if response.response().body().size().is_eof() {
            let (_, request) = response.into_parts();
            return WebResponse::new(method_not_allowed(&request, takes), request);
        }
        let allow = HeaderValue::from_static(takes);
        response.headers_mut().insert(ALLOW, allow);
        response
    }
}

/// Removes the body of a response. The header keeps the length of the body where it is known; the code that would
/// produce the body is dropped.
fn without_body(response: WebResponse) -> WebResponse {
    response.map_body(|_, body| {
        let size = match body.size() {
            BodySize::Stream => BodySize::None,
            known => known,
        };
        ResponseBody::Other(Body::from_message(OnlySize(size)))
    })
}

/// A body that reports its size and sends nothing.
struct OnlySize(BodySize);

impl MessageBody for OnlySize {
    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next_chunk(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Rc<dyn Error>>>> {
        Poll::Ready(None)
    }
}
