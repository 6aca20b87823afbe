//! Changes responses on their way out. The router's server requires much code around a middleware; it is here once for
//! all.

use std::error::Error;
use std::rc::Rc;
use std::task::{Context, Poll};

use hive_router::ntex::http::body::{Body, BodySize, MessageBody, ResponseBody};
use hive_router::ntex::service::{Service, ServiceCtx};
use hive_router::ntex::util::Bytes;
use hive_router::ntex::web::{DefaultError, Error as WebError, WebRequest, WebResponse};
use hive_router::ntex::{Middleware, SharedCfg, forward_ready};

/// A middleware that passes each response to a function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing(pub(super) fn(WebResponse) -> WebResponse);

impl<S> Middleware<S, SharedCfg> for Outgoing {
    type Service = OutgoingService<S>;

    fn create(&self, service: S, _: SharedCfg) -> Self::Service {
        OutgoingService {
            service,
            change: self.0,
        }
    }
}

/// The service that [`Outgoing`] wraps around another one.
pub(super) struct OutgoingService<S> {
    service: S,
    change: fn(WebResponse) -> WebResponse,
}

impl<S> Service<WebRequest<DefaultError>> for OutgoingService<S>
where
    S: Service<WebRequest<DefaultError>, Response = WebResponse, Error = WebError>,
{
    type Response = WebResponse;
    type Error = S::Error;

    forward_ready!(service);

    async fn call(
        &self,
        request: WebRequest<DefaultError>,
        context: ServiceCtx<'_, Self>,
    ) -> Result<Self::Response, Self::Error> {
        let response = context.call(&self.service, request).await?;
        Ok((self.change)(response))
    }
}

/// Changes each chunk of the response's body. The length is then not known in advance.
pub(super) fn each_chunk(
    response: WebResponse,
    change: impl FnMut(Bytes) -> Bytes + 'static,
) -> WebResponse {
    response.map_body(|_, body| ResponseBody::Other(Body::from_message(Chunks { body, change })))
}

struct Chunks<F> {
    body: ResponseBody<Body>,
    change: F,
}

impl<F: FnMut(Bytes) -> Bytes + 'static> MessageBody for Chunks<F> {
    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Rc<dyn Error>>>> {
        let chunk = self.body.poll_next_chunk(context);
        chunk.map(|chunk| chunk.map(|chunk| chunk.map(&mut self.change)))
    }
}
