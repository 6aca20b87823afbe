//! The GraphQL endpoint: `POST /graphql`, answered with JSON or, for subscriptions, with server-sent events. What else clients speak
//! (GET, WebSocket, other media types) the front door makes into this. A browser that comes to `/graphql` gets GraphiQL.

use std::sync::Arc;

use async_graphql::{
    Data, Executor, ObjectType, Pos, Request as GraphQlRequest, Response as GraphQlResponse,
    SchemaBuilder, SubscriptionType, Value,
};
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;
use tandem_web::Graph;

use super::documents::ParsedDocuments;
use super::entities::Entities;
use super::error::{ApiError, ErrorCodes};
use super::written::{self, Handover};
use crate::error_code::ErrorCode;
use crate::web::{
    Problem,
    consistency::{self, Of, Shows},
    graphql_refusal::{PATH, refused},
    pages,
};
use tandem_authentication::Access;
use tandem_runtime::consistency::Kind;
use tandem_runtime::shutdown::Shutdown;
use tandem_runtime::{
    span::{self, Span, SpanKind},
    trace_context::TraceContext,
};

/// Who asks; resolvers find it in the request's data. Recorded as `changedBy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Arc<str>);

impl Caller {
    /// A caller known by name: a token's subject.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// A caller that brought no credentials.
    pub fn anonymous() -> Self {
        Self::new("anonymous")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::anonymous()
    }
}

/// Tells the caller of a mutation what it wrote, so that it can read it anywhere: `tandem-consistency`.
pub fn wrote(ctx: &async_graphql::Context<'_>, kind: Kind, id: &str, revision: i64) {
    if let Some(value) = consistency::header(kind, id, revision) {
        ctx.append_http_header(consistency::HEADER, value);
    }
}

/// How much one operation may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The deepest nesting of fields.
    pub depth: usize,
    /// The most fields, counted through all fragments.
    pub complexity: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 16,
            complexity: 1_000,
        }
    }
}

/// What every schema of ours gets: limits, and a code for every error.
pub fn guard<Q, M, S>(builder: SchemaBuilder<Q, M, S>, limits: Limits) -> SchemaBuilder<Q, M, S>
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    builder
        .limit_depth(limits.depth)
        .limit_complexity(limits.complexity)
        .extension(ErrorCodes)
}

type PrepareData = Arc<dyn Fn(&mut Data) + Send + Sync>;

/// The routes of one schema.
///
/// Resolvers find an [`Access`], a [`Caller`] and a [`TraceContext`] in their context. The front door says what the caller may do by
/// putting an [`Access`] into the request's extensions; where there is none, that is nothing. Its subject is the caller; without one it
/// is anonymous.
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
    /// An endpoint for the schema of a graph; its subscriptions end when shutdown is requested.
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

    /// What `_service { sdl }` answers: the SDL as it is composed, in which more is declared than the schema knows of itself.
    #[must_use]
    pub fn with_sdl(mut self, sdl: &str) -> Self {
        self.sdl = Some(sdl.into());
        self
    }

    /// Makes operations that bring a consistency token wait for what its bearer wrote.
    #[must_use]
    pub fn showing(mut self, shows: Shows) -> Self {
        self.shows = Some(shows);
        self
    }

    /// The types that `_entities` answers, each by its `id`.
    #[must_use]
    pub fn with_entities(mut self, types: &'static [&'static str]) -> Self {
        self.entities = types;
        self
    }

    /// Puts something of its own into every operation's data, such as data loaders. Called once for each query,
    /// mutation and subscription, over HTTP as over WebSocket.
    #[must_use]
    pub fn with_operation_data(
        mut self,
        prepare: impl Fn(&mut Data) + Send + Sync + 'static,
    ) -> Self {
        self.prepare = Some(Arc::new(prepare));
        self
    }

    /// `POST /graphql`: JSON, or server-sent events for those who accept them. The front door makes all that clients speak into this.
    pub fn router<R>(self) -> Router<R>
    where
        R: Clone + Send + Sync + 'static,
    {
        let graph = self.graph;
        let endpoint = Endpoint {
            executor: PreparedExecutor {
                executor: self.executor,
                documents: ParsedDocuments::default(),
                prepare: self.prepare,
            },
            shutdown: self.shutdown,
            entities: self.entities,
            sdl: self.sdl.map(|published| PublishedSdl {
                published,
                own: Arc::default(),
            }),
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
    shutdown: Shutdown,
    entities: &'static [&'static str],
    sdl: Option<PublishedSdl>,
    shows: Option<Shows>,
}

/// The SDL that is published in the place of the schema's own.
#[derive(Clone)]
struct PublishedSdl {
    published: Arc<str>,
    /// Asked for once.
    own: Arc<tokio::sync::OnceCell<Option<String>>>,
}

/// Where a query asks for the SDL, as a federated router does.
const SERVICE: &str = "_service";

impl PublishedSdl {
    /// Puts it into a response, whatever its fields are called there.
    async fn put<E: Executor>(&self, executor: &E, response: &mut GraphQlResponse) {
        let ask = async || {
            let asked = GraphQlRequest::new("{ _service { sdl } }");
            match executor.execute(asked).await.data.into_json().ok()? {
                serde_json::Value::Object(data) => {
                    Some(data.get(SERVICE)?.get("sdl")?.as_str()?.to_owned())
                }
                _ => None,
            }
        };
        let Some(own) = self.own.get_or_init(ask).await else {
            return;
        };
        let Value::Object(data) = &mut response.data else {
            return;
        };
        for service in data.values_mut() {
            let Value::Object(service) = service else {
                continue;
            };
            for text in service.values_mut() {
                if matches!(text, Value::String(text) if text == own) {
                    *text = Value::String(self.published.to_string());
                }
            }
        }
    }
}

/// Prepares the document and the data of each operation, whichever way it came.
#[derive(Clone)]
struct PreparedExecutor<E> {
    executor: E,
    documents: ParsedDocuments,
    prepare: Option<PrepareData>,
}

impl<E> PreparedExecutor<E> {
    fn prepared(&self, mut request: GraphQlRequest) -> GraphQlRequest {
        self.documents.give(&mut request);
        if let Some(prepare) = &self.prepare {
            prepare(&mut request.data);
        }
        request
    }
}

impl<E: Executor> Executor for PreparedExecutor<E> {
    async fn execute(&self, request: GraphQlRequest) -> GraphQlResponse {
        self.executor.execute(self.prepared(request)).await
    }

    fn execute_stream(
        &self,
        request: GraphQlRequest,
        session_data: Option<Arc<Data>>,
    ) -> BoxStream<'static, GraphQlResponse> {
        self.executor
            .execute_stream(self.prepared(request), session_data)
    }
}

async fn answer<E: Executor>(
    State(endpoint): State<Endpoint<E>>,
    access: Option<Extension<Access>>,
    trace: Option<Extension<TraceContext>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let own_media_type = accepts(&headers, "application/graphql-response+json");
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let message = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "the request is larger than what is taken",
                _ => "the request could not be read to its end",
            };
            return refuse(rejection.status(), message.into());
        }
    };
    let request = match read_request(&body) {
        Ok(request) => request,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    let access = access.map(|Extension(access)| access).unwrap_or_default();
    let caller = access.subject().map(Caller::new).unwrap_or_default();
    let trace = trace.map_or_else(TraceContext::generate, |Extension(trace)| trace);
    let mut span = recorded(&request, &trace);
    let trace = span.context().unwrap_or(trace);
    let mut request = request.data(caller).data(access).data(trace);
    let behind = match &endpoint.shows {
        Some(shows) => {
            // A command needs what it decides on, and must not wait for the log.
            let is_command = request.query.trim_start().starts_with("mutation");
            let of = if is_command {
                Of::State
            } else {
                Of::StateAndAudit
            };
            consistency::wait(shows, &headers, of).await
        }
        None => Vec::new(),
    };
    if accepts(&headers, "text/event-stream") {
        return events(&endpoint, request);
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
        let error = ApiError::new(ErrorCode::REPLICA_BEHIND, consistency::told(&behind));
        let mut error = async_graphql::Error::from(error).into_server_error(Pos::default());
        error.locations.clear();
        response.errors.push(error);
    }
    let headers = response.http_headers.clone();
    if is_refusal(&response) {
        // A client that accepts JSON alone cannot tell another status from a proxy's (GraphQL over HTTP, section 6.4.1).
        let status = match own_media_type {
            true => StatusCode::BAD_REQUEST,
            false => StatusCode::OK,
        };
        return (status, headers, Json(json!({ "errors": response.errors }))).into_response();
    }
    (headers, Json(response)).into_response()
}

/// What is recorded of an operation, by OpenTelemetry's conventions for GraphQL. Neither the document nor its variables: they may hold
/// personal data.
fn recorded(request: &GraphQlRequest, trace: &TraceContext) -> Span {
    /// Characters of an operation's name that are told.
    const NAME: usize = 64;
    if !span::is_recording() {
        return Span::none();
    }
    let document = request.query.trim_start();
    let kind = ["mutation", "subscription"]
        .into_iter()
        .find(|kind| document.starts_with(kind))
        .unwrap_or("query");
    let operation = request.operation_name.as_ref();
    let operation: Option<String> = operation.map(|name| name.chars().take(NAME).collect());
    let name = match &operation {
        Some(operation) => format!("{kind} {operation}"),
        None => kind.to_owned(),
    };
    let mut span = Span::within(Some(trace), SpanKind::Internal, name);
    span.set("graphql.operation.type", kind);
    if let Some(operation) = operation {
        span.set("graphql.operation.name", operation);
    }
    span
}

/// What a browser gets. Operations by GET come here as POST, by way of the front door.
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

/// Whether the operation was not carried out at all: then a response has no data.
pub(super) fn is_refusal(response: &GraphQlResponse) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(media_type))
}

/// The responses of a subscription as server-sent events, one at a time, until it ends or the service does.
fn events<E: Executor>(endpoint: &Endpoint<E>, request: GraphQlRequest) -> Response {
    let shutdown = endpoint.shutdown.clone();
    let handover = Handover::of(&request.query);
    let mut resolved = endpoint
        .executor
        .execute_stream(request.data(handover.clone()), None);
    let responses = futures::stream::once(async move {
        let Some(first) = resolved.next().await else {
            // What resolved it is done, and need not be held for as long as it goes on.
            drop(resolved);
            return handover
                .take()
                .unwrap_or_else(|| futures::stream::empty().boxed());
        };
        let all = futures::stream::once(std::future::ready(first)).chain(resolved);
        all.map(|response| written::response(&response).into())
            .boxed()
    });
    let responses = responses
        .flatten()
        .map(|response: Bytes| {
            const BEGIN: &[u8] = b"event: next\ndata: ";
            let mut event = Vec::with_capacity(BEGIN.len() + response.len() + 2);
            event.extend_from_slice(BEGIN);
            event.extend_from_slice(&response);
            event.extend_from_slice(b"\n\n");
            Ok::<_, std::convert::Infallible>(Bytes::from(event))
        })
        .chain(futures::stream::once(async {
            Ok(Bytes::from_static(b"event: complete\ndata: \n\n"))
        }))
        .take_until(async move { shutdown.requested().await });
    let kind = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    ([kind], Body::from_stream(responses)).into_response()
}

/// One JSON request; a batch would multiply every limit.
fn read_request(body: &[u8]) -> Result<GraphQlRequest, String> {
    match body.trim_ascii_start().first() {
        None => return Err("the body is empty; send {\"query\": …, \"variables\": …}".into()),
        Some(b'[') => {
            return Err("batches are not taken; send one request, {\"query\": …}".into());
        }
        Some(_) => {}
    }
    let request: GraphQlRequest = serde_json::from_slice(body)
        .map_err(|error| format!("the body is no GraphQL request in JSON: {error}"))?;
    if request.query.trim().is_empty() {
        return Err("`query` is missing or empty".into());
    }
    Ok(request)
}

fn refuse(status: StatusCode, message: String) -> Response {
    refused(Problem::new(status).with_detail(message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use async_graphql::{Context, EmptyMutation, Object, Schema, Subscription};
    use axum::extract::Request;
    use axum::middleware::{self, Next};
    use futures::Stream;
    use serde_json::Value;
    use tandem_authentication::{Principal, Scopes};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::{Error as WsError, Message as ClientMessage};
    use tower::ServiceExt;

    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use futures::SinkExt;

    use super::*;
    use crate::web::{HttpSettings, bind, serve};

    /// Counts how often operation data was prepared.
    struct Prepared(usize);

    struct Query;

    #[Object]
    impl Query {
        async fn caller(&self, context: &Context<'_>) -> String {
            context.data_unchecked::<Caller>().as_str().to_owned()
        }
        async fn traced(&self, context: &Context<'_>) -> bool {
            context.data_opt::<TraceContext>().is_some()
        }
        async fn prepared(&self, context: &Context<'_>) -> usize {
            context.data_unchecked::<Prepared>().0
        }
    }

    struct Updates;

    #[Subscription]
    impl Updates {
        async fn count(&self, context: &Context<'_>) -> impl Stream<Item = String> + use<> {
            let caller = context.data_unchecked::<Caller>().as_str().to_owned();
            let prepared = context.data_unchecked::<Prepared>().0;
            futures::stream::iter(0..2)
                .map(move |number| format!("{caller} {prepared} {number}"))
                .chain(futures::stream::pending())
        }
    }

    async fn name_caller(mut request: Request, next: Next) -> Response {
        let named = request.headers().get("x-test-caller").cloned();
        if let Some(named) = named {
            let access = Access::Bearer(Principal {
                subject: named.to_str().unwrap().into(),
                scopes: Scopes::default(),
                expires_at: u64::MAX,
            });
            request.extensions_mut().insert(access);
        }
        next.run(request).await
    }

    fn router(shutdown: &Shutdown) -> Router {
        let schema = guard(
            Schema::build(Query, EmptyMutation, Updates),
            Limits::default(),
        )
        .finish();
        let counter = Arc::new(AtomicU64::new(0));
        GraphQlEndpoint::new(Graph::Orders, schema, shutdown.clone())
            .with_operation_data(move |data| {
                let nth = counter.fetch_add(1, Ordering::Relaxed) + 1;
                data.insert(Prepared(usize::try_from(nth).unwrap()));
            })
            .router()
            .layer(middleware::from_fn(name_caller))
    }

    async fn send(body: &str, caller: Option<&str>) -> (u16, Value) {
        let mut request = Request::post("/graphql").header("content-type", "application/json");
        if let Some(caller) = caller {
            request = request.header("x-test-caller", caller);
        }
        let response = router(&Shutdown::new())
            .oneshot(request.body(Body::from(body.to_owned())).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_query_is_answered_and_knows_who_asks() {
        let query = r#"{"query": "{ caller traced prepared }"}"#;
        let (status, body) = send(query, None).await;
        assert_eq!(status, 200);
        assert_eq!(
            body["data"],
            json!({"caller": "anonymous", "traced": true, "prepared": 1})
        );
        let (_, body) = send(query, Some("ada")).await;
        assert_eq!(body["data"]["caller"], "ada");
    }

    #[tokio::test]
    async fn a_browser_gets_graphiql_and_a_program_is_told_to_post() {
        for (accept, status, kind) in [
            ("text/html,*/*;q=0.8", 200, "text/html; charset=utf-8"),
            ("*/*", 405, "application/json"),
        ] {
            let request = Request::get("/graphql")
                .header("accept", accept)
                .body(Body::empty())
                .unwrap();
            let response = router(&Shutdown::new()).oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{accept}");
            assert_eq!(response.headers()["content-type"], kind);
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_as_a_graphql_error() {
        for body in [
            "",
            "{",
            "[]",
            "5",
            "{}",
            r#"{"query": 5}"#,
            r#"{"query": ""}"#,
        ] {
            let (status, answer) = send(body, None).await;
            assert_eq!(status, 400, "{body}");
            assert_eq!(
                answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
                "{body}"
            );
        }
    }

    type Client = tokio_tungstenite::WebSocketStream<
        tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>,
    >;

    struct Server {
        address: std::net::SocketAddr,
        shutdown: Shutdown,
        task: tokio::task::JoinHandle<()>,
    }

    impl Server {
        async fn start() -> Self {
            let shutdown = Shutdown::new();
            let settings = HttpSettings::default();
            let listener = bind(settings.host, 0, "--port").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, app) = (shutdown.clone(), router(&shutdown));
            let task = tokio::spawn(async move {
                serve(listener, app, &settings, &stop).await.unwrap();
            });
            Self {
                address,
                shutdown,
                task,
            }
        }

        async fn connect(&self, protocol: Option<&str>) -> Result<Client, WsError> {
            self.connect_to("/graphql/ws", protocol).await
        }

        async fn connect_to(&self, path: &str, protocol: Option<&str>) -> Result<Client, WsError> {
            let mut request = format!("ws://{}{path}", self.address)
                .into_client_request()
                .unwrap();
            let headers = request.headers_mut();
            headers.insert("x-test-caller", "ada".parse().unwrap());
            if let Some(protocol) = protocol {
                headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
            }
            Ok(tokio_tungstenite::connect_async(request).await?.0)
        }
    }

    async fn say(client: &mut Client, message: Value) {
        client
            .send(ClientMessage::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn hear(client: &mut Client) -> ClientMessage {
        tokio::time::timeout(Duration::from_secs(5), client.next())
            .await
            .expect("a message in time")
            .expect("an open connection")
            .unwrap()
    }

    async fn hear_json(client: &mut Client) -> Value {
        serde_json::from_str(hear(client).await.to_text().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_subscription_is_served_in_both_protocols() {
        let server = Server::start().await;
        for (path, protocol, start, next) in [
            ("/graphql/ws", "graphql-transport-ws", "subscribe", "next"),
            ("/graphql/ws", "graphql-ws", "start", "data"),
            ("/graphql", "graphql-transport-ws", "subscribe", "next"),
        ] {
            let mut client = server.connect_to(path, Some(protocol)).await.unwrap();
            say(&mut client, json!({"type": "connection_init"})).await;
            assert_eq!(hear_json(&mut client).await["type"], "connection_ack");
            for id in ["first", "second"] {
                let payload = json!({"query": "subscription { count }"});
                say(
                    &mut client,
                    json!({"type": start, "id": id, "payload": payload}),
                )
                .await;
                for number in 0..2 {
                    let message = hear_json(&mut client).await;
                    assert_eq!(
                        (&message["type"], &message["id"]),
                        (&json!(next), &json!(id))
                    );
                    let text = message["payload"]["data"]["count"].as_str().unwrap();
                    assert!(
                        text.starts_with("ada ") && text.ends_with(&format!(" {number}")),
                        "{text}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn each_operation_of_a_connection_gets_data_of_its_own() {
        let server = Server::start().await;
        let mut client = server.connect(Some("graphql-transport-ws")).await.unwrap();
        say(&mut client, json!({"type": "connection_init"})).await;
        hear_json(&mut client).await;
        for expected in 1..3 {
            let payload = json!({"query": "{ prepared }"});
            say(
                &mut client,
                json!({"type": "subscribe", "id": "q", "payload": payload}),
            )
            .await;
            let message = hear_json(&mut client).await;
            assert_eq!(message["payload"]["data"]["prepared"], expected);
            assert_eq!(hear_json(&mut client).await["type"], "complete");
        }
    }

    #[tokio::test]
    async fn an_open_websocket_is_closed_when_the_service_shuts_down() {
        let server = Server::start().await;
        let mut client = server.connect(Some("graphql-transport-ws")).await.unwrap();
        say(&mut client, json!({"type": "connection_init"})).await;
        hear_json(&mut client).await;
        server.shutdown.request("test");
        match hear(&mut client).await {
            // Service Restart (RFC 6455's registry): come again.
            ClientMessage::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
            other => panic!("not a close message: {other:?}"),
        }
        let limit = Duration::from_secs(5);
        tokio::time::timeout(limit, server.task)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(server.shutdown.drain(limit).await, Ok(()));
    }

    #[tokio::test]
    async fn a_websocket_without_a_known_subprotocol_is_refused() {
        let server = Server::start().await;
        for protocol in [None, Some("chat")] {
            match server.connect(protocol).await {
                Err(WsError::Http(response)) => assert_eq!(response.status(), 400),
                other => panic!("not refused: {other:?}"),
            }
        }
    }
}
