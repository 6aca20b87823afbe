//! Lets multipart clients see each event of a subscription at once.
//!
//! The router writes a part's boundary in front of the part alone. A client knows that a part has ended when it sees the
//! next boundary, which comes with the next event or heartbeat, up to 10 s later. Here the boundary follows its part.

use std::error::Error;
use std::rc::Rc;
use std::task::{Context, Poll};

use hive_router::ntex::http::body::{Body, BodySize, MessageBody, ResponseBody};
use hive_router::ntex::http::header;
use hive_router::ntex::service::{Service, ServiceCtx};
use hive_router::ntex::util::{Bytes, BytesMut};
use hive_router::ntex::web::{DefaultError, Error as WebError, WebRequest, WebResponse};
use hive_router::ntex::{Middleware, SharedCfg, forward_ready};

/// The middleware; other responses pass through it as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromptParts;

impl<S> Middleware<S, SharedCfg> for PromptParts {
    type Service = PromptPartsService<S>;

    fn create(&self, service: S, _: SharedCfg) -> Self::Service {
        PromptPartsService { service }
    }
}

/// The service that [`PromptParts`] wraps around another one.
pub(super) struct PromptPartsService<S> {
    service: S,
}

impl<S> Service<WebRequest<DefaultError>> for PromptPartsService<S>
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
        let Some(boundary) = boundary(&response) else {
            return Ok(response);
        };
        Ok(response.map_body(|_, body| {
            ResponseBody::Other(Body::from_message(Parts {
                body,
                boundaries: Boundaries::new(boundary),
            }))
        }))
    }
}

/// The boundary between the parts of a multipart response.
fn boundary(response: &WebResponse) -> Option<String> {
    let content_type = response
        .headers()
        .get(header::CONTENT_TYPE)?
        .to_str()
        .ok()?;
    let parameters = content_type.strip_prefix("multipart/mixed;")?;
    let boundary = parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(format!("--{}", boundary.trim_matches('"')))
}

struct Parts {
    body: ResponseBody<Body>,
    boundaries: Boundaries,
}

impl MessageBody for Parts {
    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Rc<dyn Error>>>> {
        self.body
            .poll_next_chunk(context)
            .map(|chunk| chunk.map(|chunk| chunk.map(|bytes| self.boundaries.move_up(bytes))))
    }
}

/// Moves each boundary from the chunk that begins with it to the end of the chunk before.
struct Boundaries {
    boundary: String,
    /// Whether the next part's boundary was written already.
    written: bool,
}

impl Boundaries {
    fn new(boundary: String) -> Self {
        Self {
            boundary,
            written: false,
        }
    }

    fn move_up(&mut self, chunk: Bytes) -> Bytes {
        let mut rest = chunk.as_ref();
        if self.written
            && let Some(without) = rest.strip_prefix(self.boundary.as_bytes())
        {
            rest = without;
            self.written = false;
        }
        // A part's head ends with an empty line, its JSON with one line break.
        let part_ends = rest.ends_with(b"\r\n") && !rest.ends_with(b"\r\n\r\n");
        if !part_ends && rest.len() == chunk.len() {
            return chunk;
        }
        let mut moved = BytesMut::with_capacity(rest.len() + self.boundary.len());
        moved.extend_from_slice(rest);
        if part_ends {
            moved.extend_from_slice(self.boundary.as_bytes());
            self.written = true;
        }
        moved.freeze()
    }
}
