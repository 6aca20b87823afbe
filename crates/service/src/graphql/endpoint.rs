//! The GraphQL endpoint: `POST /graphql`, answered with JSON or, for subscriptions, with server-sent events. The front
//! door translates everything else that clients use (GET, WebSocket, other media types) to this. A browser that opens
//! `/graphql` gets GraphiQL.

mod caller;
mod consistency;
mod limits;
mod operation_kind;
mod operation_span;
mod prepared_executor;
mod published_sdl;
mod request_body;
mod server_sent_events;

use std::sync::Arc;

use async_graphql::{Data, Executor};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tandem_web::Graph;

pub use caller::Caller;
pub use consistency::wrote;
pub use limits::{Limits, guard};
use operation_span::recorded;
use prepared_executor::{PrepareData, PreparedExecutor};
use published_sdl::{PublishedSdl, SERVICE};
use server_sent_events::events;

use super::documents::ParsedDocuments;
use super::entities::Entities;
use super::written::is_refusal;
use crate::web::{
    Problem,
    consistency::{Behind, Shows},
    graphql_refusal::{PATH, refused},
    pages,
};
use tandem_authentication::Access;
use tandem_front_door::graphql::{OperationKind, VariablesChecked};
use tandem_runtime::{shutdown::Shutdown, trace_context::TraceContext};

/// The routes of one schema.
///
/// Resolvers find an [`Access`], a [`Caller`] and a [`TraceContext`] in their context. The front door puts the caller's
/// [`Access`] into the request's extensions; without one the caller has no rights. The caller is the subject of that
/// access, and anonymous without one. The front door also passes on the kind of the operation ([`OperationKind`]);
/// without it the endpoint takes the kind from the document. If the front door has checked the variables
/// ([`VariablesChecked`]), a document that was validated before is not validated again.
#[derive(Clone)]
pub struct GraphQlEndpoint<E> {
    graph: Graph,
    executor: E,
    shutdown: Shutdown,
    prepare: Option<PrepareData>,
    entities: &'static [&'static str],
    sdl: Option<Arc<str>>,
    shows: Option<Shows>,
}

impl<E: Executor> GraphQlEndpoint<E> {
    /// An endpoint for the schema of a graph. Its subscriptions end when shutdown is requested.
    pub fn new(graph: Graph, executor: E, shutdown: Shutdown) -> Self {
        Self {
            graph,
            executor,
            shutdown,
            prepare: None,
            entities: &[],
            sdl: None,
            shows: None,
        }
    }

    /// Sets the answer to `_service { sdl }`: the SDL for composition, which declares more than the schema can.
    #[must_use]
    pub fn with_sdl(mut self, sdl: &str) -> Self {
        self.sdl = Some(sdl.into());
        self
    }

    /// Makes operations with a consistency token wait until the bearer's writes are visible.
    #[must_use]
    pub fn showing(mut self, shows: Shows) -> Self {
        self.shows = Some(shows);
        self
    }

    /// Sets the types that `_entities` resolves, each by its `id`.
    #[must_use]
    pub fn with_entities(mut self, types: &'static [&'static str]) -> Self {
        self.entities = types;
        self
    }

    /// Adds data to every operation, such as data loaders. `prepare` is called once for each query, mutation and
    /// subscription, over HTTP and over WebSocket.
    #[must_use]
    pub fn with_operation_data(
        mut self,
        prepare: impl Fn(&mut Data) + Send + Sync + 'static,
    ) -> Self {
        self.prepare = Some(Arc::new(prepare));
        self
    }

    /// `POST /graphql`: JSON, or server-sent events for clients that accept them. The front door translates every other
    /// protocol to this.
    pub fn router<R>(self) -> Router<R>
    where
        R: Clone + Send + Sync + 'static,
    {
        let graph = self.graph;
        let endpoint = Endpoint {
            executor: PreparedExecutor {
                executor: self.executor,
                prepare: self.prepare,
            },
            documents: ParsedDocuments::default(),
            shutdown: self.shutdown,
            entities: self.entities,
            sdl: self.sdl.map(PublishedSdl::new),
            shows: self.shows,
        };
        Router::new()
            .route(
                PATH,
                post(answer::<E>).get(async move |headers: HeaderMap| look(graph, &headers)),
            )
            .with_state(endpoint)
    }
}

#[derive(Clone)]
struct Endpoint<E> {
    executor: PreparedExecutor<E>,
    documents: ParsedDocuments,
    shutdown: Shutdown,
    entities: &'static [&'static str],
    sdl: Option<PublishedSdl>,
    shows: Option<Shows>,
}

async fn answer<E: Executor>(
    State(endpoint): State<Endpoint<E>>,
    access: Option<Extension<Access>>,
    trace: Option<Extension<TraceContext>>,
    kind: Option<Extension<OperationKind>>,
    checked: Option<Extension<VariablesChecked>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let own_media_type = accepts(&headers, "application/graphql-response+json");
    let mut request = match request_body::read(body) {
        Ok(request) => request,
        Err((status, message)) => return refuse(status, message),
    };
    let access = access.map(|Extension(access)| access).unwrap_or_default();
    let caller = access.subject().map(Caller::new).unwrap_or_default();
    let trace = trace.map_or_else(TraceContext::generate, |Extension(trace)| trace);
    endpoint.documents.give(&mut request);
    let kind = operation_kind::of(&mut request, kind.map(|Extension(kind)| kind));
    let mut span = recorded(&request, kind, &trace);
    let trace = span.context().unwrap_or(trace);
    let behind = match endpoint.shows.as_ref().zip(kind) {
        Some((shows, kind)) => consistency::wait(shows, &headers, &access, kind).await,
        None => Vec::new(),
    };
    let mut request = request.data(caller).data(access).data(trace);
    if let Some(behind) = Behind::of(&behind) {
        request = request.data(behind);
    }
    if let Some(Extension(checked)) = checked {
        request = request.data(checked);
    }
    if accepts(&headers, "text/event-stream") {
        return events(&endpoint.executor, request, endpoint.shutdown);
    }
    let entities = Entities::take_out(&mut request, endpoint.entities);
    let asks_for_sdl = request.query.contains(SERVICE);
    let mut response = match span.is_recorded() {
        true => trace.scope(endpoint.executor.execute(request)).await,
        false => endpoint.executor.execute(request).await,
    };
    if is_refusal(&response) {
        span.fail("refused");
    }
    drop(span);
    entities.put_back(&mut response, endpoint.entities);
    if let Some(sdl) = endpoint.sdl.as_ref().filter(|_| asks_for_sdl) {
        sdl.put(&endpoint.executor.executor, &mut response).await;
    }
    if !behind.is_empty() {
        response.errors.push(consistency::error(&behind));
    }
    let headers = response.http_headers.clone();
    if is_refusal(&response) {
        // A client that accepts only JSON cannot tell another status from a proxy's (GraphQL over HTTP, section 6.4.1).
        let status = match own_media_type {
            true => StatusCode::BAD_REQUEST,
            false => StatusCode::OK,
        };
        return (status, headers, Json(json!({ "errors": response.errors }))).into_response();
    }
    (headers, Json(response)).into_response()
}

/// The answer to a GET. A browser gets GraphiQL. Operations by GET never come here: the front door turns them into
/// POST.
fn look(graph: Graph, headers: &HeaderMap) -> Response {
    if pages::is_person(headers) {
        return pages::graphiql(graph);
    }
    let mut refusal = refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        "send the operation by POST; a browser gets GraphiQL here".into(),
    );
    refusal
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    refusal
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(media_type))
}

fn refuse(status: StatusCode, message: String) -> Response {
    refused(Problem::new(status).with_detail(message))
}

#[cfg(test)]
mod tests;
