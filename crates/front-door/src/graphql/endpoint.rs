//! GraphQL over HTTP: queries, mutations and subscriptions as answers of a form that the client accepts.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use tandem_runtime::trace_context::TraceContext;
use tokio::time::Instant;

use super::aliases::restored;
use super::call::Call;
use super::document::{Chosen, DocumentLimits, Documents, Kind, Treatment};
use super::error::{Code, Refused, RequestError};
use super::events::{self, Held, Receiver};
use super::inner::{Inner, Origin, set_up};
use super::negotiation::{self, Format};
use super::persisted::{Persisted, TrustedDocuments};
use super::rewrite::without_fillers;
use super::schema::GraphSchema;
use super::steps::carry_out;
use super::streams;
use super::variables::{Members, coerced};
use crate::http::admission::{Client, Counter, Share, TOO_FAST, cost_of_bytes, whole_seconds};
use crate::http::aside::{Aside, NotDone};
use crate::http::body::{BodyLimits, BodyRefused, read};
use crate::http::media::{MediaRange, accepted, content_type, is_json};
use crate::http::problem::retry_after;
use crate::http::serving::About;
use crate::http::turns::{Turn, Turns};
use crate::identity::{self, Identity};
use crate::runtime::{Task, Tasks};
use crate::shutdown::Stop;

/// What the endpoint takes.
pub(super) const METHODS: &str = "GET, HEAD, POST";

/// How GraphQL is served.
#[derive(Debug, Clone)]
pub struct GraphQlRules {
    /// Documents are validated against it; without it they are parsed and counted.
    pub schema: Option<GraphSchema>,
    /// How large documents may be.
    pub limits: DocumentLimits,
    /// How documents are treated.
    pub treatment: Treatment,
    /// If there are any, only these are carried out.
    pub trusted: Option<TrustedDocuments>,
    /// Where it is served, such as `/graphql`; WebSockets also at `/graphql/ws`.
    pub path: Arc<str>,
    /// The deepest nesting of JSON.
    pub json_depth: usize,
    /// The largest body of a request, in bytes.
    pub body_size: usize,
    /// Whether errors of requests are logged.
    pub log_errors: bool,
    /// Whether what carries subscriptions out waits until an event is taken. What does not, and drops events instead, is read ahead.
    pub waits_for_clients: bool,
    /// Subscriptions of one client that are set up at once; its others wait for their turn.
    pub set_ups_per_client: usize,
}

impl Default for GraphQlRules {
    fn default() -> Self {
        Self {
            schema: None,
            limits: DocumentLimits::default(),
            treatment: Treatment::default(),
            trusted: None,
            path: "/graphql".into(),
            json_depth: 24,
            body_size: 1024 * 1024,
            log_errors: false,
            waits_for_clients: false,
            set_ups_per_client: 64,
        }
    }
}

/// From so many bytes on the body of a request is read aside.
const LARGE: usize = 32 * 1024;

/// What all requests for GraphQL share.
#[derive(Debug)]
pub(crate) struct GraphQl {
    pub(super) documents: Documents,
    pub(super) persisted: Persisted,
    pub(super) held: Held,
    pub(super) subscriptions: Counter,
    /// Turns of subscriptions that are being set up, also of those that the client has ended meanwhile: each takes much more of a router than one
    /// that goes on.
    set_ups: Turns,
    aside: Aside,
    pub(super) path: Arc<str>,
    pub(super) json_depth: usize,
    body: BodyLimits,
    /// The largest answer, in bytes.
    pub(super) max_answer: usize,
    pub(super) log_errors: bool,
    waits_for_clients: bool,
    pub(super) tasks: Tasks,
}

/// Who subscribes, and when its token ends.
struct Subscriber {
    share: Share,
    ends: Option<Instant>,
    stop: Stop,
}

/// An operation as it is handed on.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) operation: Chosen,
    pub(super) body: Bytes,
    /// The steps behind the first, if it is carried out in several.
    pub(super) further: Vec<Bytes>,
    /// The key of each step's field in the answer.
    pub(super) keys: Vec<Arc<str>>,
}

/// A document that is asked for.
struct Asked {
    document: Arc<str>,
    /// Whether the request named it, and has not sent it.
    is_named: bool,
    takes_long: bool,
}

impl Ready {
    fn new(operation: Chosen, body: Bytes) -> Self {
        Self {
            operation,
            body,
            further: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl GraphQl {
    pub(crate) fn new(
        rules: GraphQlRules,
        body_time: std::time::Duration,
        max_answer: usize,
        subscriptions: Counter,
        tasks: Tasks,
    ) -> Self {
        Self {
            documents: Documents::new(rules.schema, rules.limits, rules.treatment),
            persisted: Persisted::new(rules.trusted),
            held: Held::default(),
            subscriptions,
            set_ups: Turns::new(rules.set_ups_per_client, usize::MAX),
            aside: Aside::default(),
            path: rules.path,
            json_depth: rules.json_depth,
            body: BodyLimits {
                size: rules.body_size,
                time: body_time,
            },
            max_answer,
            log_errors: rules.log_errors,
            waits_for_clients: rules.waits_for_clients,
            tasks,
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Answers a request that came by HTTP.
    pub(crate) async fn answer<I: Inner>(
        self: &Arc<Self>,
        inner: &I,
        share: Share,
        identity: &Identity,
        mut parts: Parts,
        body: impl http_body::Body<Data = Bytes> + Unpin,
        stop: &Stop,
    ) -> Response<Body> {
        let accepted = accepted(&parts.headers);
        if is_of_single_connection(&parts) {
            return json(
                StatusCode::BAD_REQUEST,
                Format::Json,
                single_connection_refused(StatusCode::BAD_REQUEST)
                    .body()
                    .into(),
            );
        }
        let taken = match parts.method {
            Method::GET | Method::HEAD => {
                Call::from_address(parts.uri.query().unwrap_or_default(), self.json_depth)
                    .map(|call| (call, None))
                    .map_err(Refused::from)
            }
            Method::POST => self.read(&parts, body, &share).await,
            _ => return method_not_allowed(&parts.method),
        };
        match identity.access() {
            Ok(access) => {
                parts.extensions.insert(access);
            }
            Err(rejection) => {
                let refused = RequestError::token(&rejection).into();
                let response = self.refuse(&parts, accepted.as_deref(), &refused);
                return identity::challenge(response, &rejection);
            }
        }
        let is_get = parts.method != Method::POST;
        let ready = match taken {
            Ok((call, body)) => self.ready(call, body, is_get, &share).await,
            Err(refused) => Err(refused),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(refused) => return self.refuse(&parts, accepted.as_deref(), &refused),
        };
        if let Some(about) = parts.extensions.remove::<About>()
            && let Some(name) = &ready.operation.sent_name
        {
            about.operation(name);
        }
        let origin = Origin::new(&self.path, &parts.headers, &parts.extensions);
        let kind = ready.operation.kind;
        match negotiation::choose(accepted.as_deref(), kind) {
            None => not_acceptable(kind),
            Some(format @ (Format::Json | Format::OwnJson)) => {
                let limit = self.max_answer;
                let answer = carry_out(inner, &origin, &ready, json_of(format), limit).await;
                let request_id = request_id(&parts.headers);
                self.single(&ready.operation, answer, format, request_id)
                    .await
            }
            Some(format) => {
                let subscriber = Subscriber {
                    share,
                    ends: identity.ends(),
                    stop: stop.clone(),
                };
                self.stream(inner, subscriber, &parts, &origin, ready, format)
                    .await
            }
        }
    }

    async fn read(
        &self,
        parts: &Parts,
        body: impl http_body::Body<Data = Bytes> + Unpin,
        share: &Share,
    ) -> Result<(Call, Option<Bytes>), Refused> {
        let is_right = content_type(&parts.headers).is_some_and(|range| is_json(&range, false));
        // The body is read in any case: some clients read no answer before they have written all.
        let body = read(&parts.headers, body, self.body).await;
        let is_too_large = matches!(body, Err(BodyRefused::TooLarge(_)));
        if !is_right && !is_too_large {
            return Err(RequestError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::BadUserInput,
                "media_type",
                "send JSON, with `content-type: application/json`",
            )
            .into());
        }
        let body = body.map_err(|error| {
            RequestError::new(
                error.status(),
                Code::BadUserInput,
                "body",
                error.to_string(),
            )
        })?;
        let call = self.call(&body, share).await?;
        Ok((call, Some(body)))
    }

    /// Reads a request from JSON: what is large is paid for, and read aside.
    ///
    /// # Errors
    /// When it is no request, nests too deep, or is more than the client's share.
    pub(super) async fn call(&self, body: &Bytes, share: &Share) -> Result<Call, RequestError> {
        pay(share, cost_of_bytes(body.len()))?;
        let depth = self.json_depth;
        if body.len() < LARGE {
            return Call::from_json(body, depth);
        }
        let body = body.clone();
        let read = move || Call::from_json(&body, depth);
        self.aside
            .run(share.client(), read)
            .await
            .map_err(not_done)?
    }

    /// Checks a request and puts it into the form in which it is handed on. `body` is the one that it was read from. What takes long is paid for, and
    /// done aside.
    ///
    /// # Errors
    /// When it is not to be carried out, or is more than the client's share.
    pub(super) async fn ready(
        self: &Arc<Self>,
        call: Call,
        body: Option<Bytes>,
        is_get: bool,
        share: &Share,
    ) -> Result<Ready, Refused> {
        let mut name = self.documents.told_name(call.operation_name.as_deref());
        let ready = match self.asked(call, share) {
            Ok((asked, call)) => {
                let is_large = body.as_ref().is_some_and(|body| body.len() >= LARGE);
                if asked.takes_long || is_large {
                    let this = Arc::clone(self);
                    let work = move || {
                        let ready = this.checked(asked, &call, body, is_get, &mut name);
                        ready.map_err(|refused| refused.of_operation(name))
                    };
                    return self
                        .aside
                        .run(share.client(), work)
                        .await
                        .map_err(|error| Refused::from(not_done(error)))?;
                }
                self.checked(asked, &call, body, is_get, &mut name)
            }
            Err(refused) => Err(refused),
        };
        ready.map_err(|refused| refused.of_operation(name))
    }

    /// The document that is asked for, if it may be checked: one that is not known is looked over and paid for.
    fn asked(&self, mut call: Call, share: &Share) -> Result<(Asked, Call), Refused> {
        let is_named = call.query.is_none();
        let document = self.persisted.document(&mut call)?;
        let takes_long = match self.documents.weight(&document)? {
            None => false,
            Some(weight) => {
                pay(share, weight.cost())?;
                weight.takes_long()
            }
        };
        let asked = Asked {
            document,
            is_named,
            takes_long,
        };
        Ok((asked, call))
    }

    fn checked(
        &self,
        asked: Asked,
        call: &Call,
        body: Option<Bytes>,
        is_get: bool,
        name: &mut Option<String>,
    ) -> Result<Ready, Refused> {
        let Asked {
            document, is_named, ..
        } = asked;
        let operation = self
            .documents
            .operation(&document, call.operation_name.as_deref())?;
        name.clone_from(&operation.sent_name);
        if is_get && operation.kind == Kind::Mutation {
            return Err(RequestError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::BadUserInput,
                "mutation_by_get",
                "a mutation changes something: send it with POST",
            )
            .into());
        }
        let variables = Members::of(call.variables.as_deref());
        self.check_cost(&operation, &variables)?;
        let coerced = match self.documents.schema() {
            Some(schema) => coerced(schema, &operation.variables, &variables)?,
            None => None,
        };
        let sent_variables = coerced
            .as_deref()
            .or(call.variables.as_deref().map(RawValue::get));
        if !operation.steps.is_empty() {
            return Ok(in_steps(&operation, &variables, sent_variables));
        }
        let rewritten = operation
            .without_absent(|name| variables.get(name).is_some())
            .or_else(|| operation.rewritten.clone());
        if rewritten.is_none()
            && coerced.is_none()
            && !is_named
            && call.document_id.is_none()
            && let Some(body) = body
        {
            return Ok(Ready::new(operation, body));
        }
        let body = written(
            rewritten.as_deref().unwrap_or(&document),
            operation.sent_name.as_deref(),
            sent_variables,
        );
        Ok(Ready::new(operation, body))
    }

    fn check_cost(&self, operation: &Chosen, variables: &Members<'_>) -> Result<(), RequestError> {
        let Some(model) = &operation.cost else {
            return Ok(());
        };
        let cost = model.fixed().unwrap_or_else(|| model.with(variables));
        let limit = self.documents.limits().cost;
        if cost <= limit {
            return Ok(());
        }
        Err(RequestError::too_expensive(
            cost,
            limit,
            format!(
                "the answer could have {cost} fields; {limit} are given: ask for smaller pages, with `first`, or for less of each"
            ),
        ))
    }

    fn refuse(
        &self,
        parts: &Parts,
        accepted: Option<&[MediaRange]>,
        refused: &Refused,
    ) -> Response<Body> {
        self.tell(refused, request_id(&parts.headers));
        // A client that reads events alone learns by an event what is wrong with its document (graphql-sse).
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

    /// Counts a refusal, and logs it where that is wanted.
    pub(super) fn tell(&self, refused: &Refused, request_id: Option<&str>) {
        metrics::counter!("front_door_refusals_total", "reason" => refused.reason()).increment(1);
        if self.log_errors
            && let Some(error) = refused.first()
        {
            // Not what the message says: it may quote what the client sent.
            tracing::warn!(
                request_id,
                operation = refused.operation(),
                code = error.code().as_str(),
                reason = refused.reason(),
                "a request was refused"
            );
        }
    }

    /// Counts an answer, and logs its errors, where that is wanted. `trace` is that of the request if it is recorded.
    fn tell_errors(
        &self,
        operation: &Chosen,
        request_id: Option<&str>,
        trace: Option<&TraceContext>,
        answer: &[u8],
    ) {
        let has_errors = memchr::memmem::find(answer, b"\"errors\":[").is_some();
        self.documents.count(operation, has_errors, trace);
        if !self.log_errors || !has_errors {
            return;
        }
        let codes = codes(answer);
        if !codes.is_empty() {
            tracing::warn!(
                request_id,
                operation = operation.sent_name.as_deref(),
                codes = codes.join(","),
                "an operation was answered with errors"
            );
        }
    }

    /// An answer as a whole, or what is said in its place, counted; `None` when it broke off.
    pub(super) async fn told(
        &self,
        operation: &Chosen,
        answer: Response<Body>,
        request_id: Option<&str>,
    ) -> Option<Bytes> {
        let (parts, body) = answer.into_parts();
        let bytes = match whole(body, self.max_answer).await {
            Ok(bytes) => bytes,
            Err(Unread::TooLarge(refused)) => with_null(&refused),
            Err(Unread::BrokenOff) => return None,
        };
        self.tell_errors(operation, request_id, parts.extensions.get(), &bytes);
        Some(bytes)
    }

    async fn single(
        &self,
        operation: &Chosen,
        answer: Response<Body>,
        format: Format,
        request_id: Option<&str>,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        );
        let length = body.size_hint().exact();
        let is_within = length.is_some_and(|length| length <= self.max_answer as u64);
        if !operation.is_altered() && !self.log_errors && is_within {
            return Response::from_parts(parts, body);
        }
        let bytes = match whole(body, self.max_answer).await {
            Ok(bytes) => bytes,
            Err(Unread::TooLarge(refused)) => {
                self.tell(&refused, request_id);
                return json(StatusCode::OK, format, with_null(&refused));
            }
            Err(Unread::BrokenOff) => return unreadable_answer(format),
        };
        self.tell_errors(operation, request_id, parts.extensions.get(), &bytes);
        let bytes = filtered(operation, bytes);
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(bytes))
    }

    async fn stream<I: Inner>(
        &self,
        inner: &I,
        subscriber: Subscriber,
        parts: &Parts,
        origin: &Origin,
        ready: Ready,
        format: Format,
    ) -> Response<Body> {
        if ready.operation.kind != Kind::Subscription {
            let accept = json_of(Format::OwnJson);
            let answer = carry_out(inner, origin, &ready, accept, self.max_answer).await;
            let operation = ready.operation;
            let request_id = request_id(&parts.headers);
            let Some(bytes) = self.told(&operation, answer, request_id).await else {
                return unreadable_answer(Format::OwnJson);
            };
            return streams::single_event(filtered(&operation, bytes));
        }
        let client = subscriber.share.client();
        let Some(counted) = self.subscriptions.admit(client) else {
            let refused = RequestError::rate_limited(1, TOO_MANY_SUBSCRIPTIONS).into();
            return self.refuse(parts, None, &refused);
        };
        let Ready {
            operation, body, ..
        } = ready;
        let request = origin.request(body, "text/event-stream");
        let turn = self.turn(client).await;
        let Some((answer, counted)) = set_up(self.tasks, inner, request, counted, turn).await
        else {
            return unreadable_answer(Format::OwnJson);
        };
        if is_event_stream(&answer) {
            let (receiver, task) = self.events(answer.into_body(), operation, subscriber.ends);
            return streams::response(receiver, format, task, counted, subscriber.stop);
        }
        let (sender, receiver) = events::queue(&self.held, operation, subscriber.ends);
        let request_id = request_id(&parts.headers);
        // It was refused: one event says why.
        if let Some(bytes) = self.told(sender.operation(), answer, request_id).await {
            sender.put(bytes);
        }
        sender.complete();
        drop(sender);
        streams::response(receiver, format, None, counted, subscriber.stop)
    }
}

impl GraphQl {
    /// The turn of a subscription of this client to be set up. So many wait as there may be subscriptions.
    pub(super) async fn turn(&self, client: Client) -> Option<Turn> {
        Some(self.set_ups.join(client)?.turn().await)
    }

    /// The events of a subscription, and what reads them ahead, if that is needed.
    pub(super) fn events(
        &self,
        upstream: Body,
        operation: Chosen,
        ends: Option<Instant>,
    ) -> (Receiver, Option<Task>) {
        if self.waits_for_clients {
            return (Receiver::of_upstream(upstream, operation, ends), None);
        }
        let (sender, receiver) = events::queue(&self.held, operation, ends);
        (receiver, Some(self.tasks.start(sender.forward(upstream))))
    }
}

/// Pays for what costs as much as so many requests.
fn pay(share: &Share, requests: u32) -> Result<(), RequestError> {
    share
        .pay(requests)
        .map_err(|wait| RequestError::rate_limited(whole_seconds(wait), TOO_FAST))
}

fn not_done(error: NotDone) -> RequestError {
    let message = error.to_string();
    match error {
        NotDone::TooMuch => RequestError::rate_limited(1, message),
        NotDone::Failed => RequestError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unavailable,
            "internal",
            message,
        ),
    }
}

pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-request-id")?.to_str().ok()
}

pub(super) const TOO_MANY_SUBSCRIPTIONS: &str =
    "so many subscriptions of one client are not taken at once: end some first";

pub(super) fn json_of(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        _ => "application/graphql-response+json",
    }
}

pub(super) fn is_event_stream(answer: &Response<Body>) -> bool {
    answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer without what the client did not ask for.
pub(super) fn filtered(operation: &Chosen, bytes: Bytes) -> Bytes {
    if !operation.is_altered() {
        return bytes;
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return bytes;
    };
    match (operation.has_fillers, operation.has_renamed) {
        (true, true) => restored(&without_fillers(text)).into(),
        (true, false) => without_fillers(text).into(),
        (false, _) => restored(text).into(),
    }
}

/// A mutation with each of its fields as a request.
fn in_steps(operation: &Chosen, variables: &Members<'_>, sent_variables: Option<&str>) -> Ready {
    let mut bodies = operation.steps.iter().map(|(_, step)| {
        let absent = step.without_absent(|name| variables.get(name).is_some());
        let document = absent.or_else(|| step.rewritten.clone());
        written(
            document.as_deref().unwrap_or_default(),
            step.sent_name.as_deref(),
            sent_variables,
        )
    });
    let body = bodies.next().unwrap_or_default();
    Ready {
        operation: operation.clone(),
        body,
        further: bodies.collect(),
        keys: operation
            .steps
            .iter()
            .map(|(key, _)| Arc::clone(key))
            .collect(),
    }
}

/// Why there is no answer.
pub(super) enum Unread {
    /// It is larger than what is given: what the client is told.
    TooLarge(Refused),
    /// It ended in the middle.
    BrokenOff,
}

/// An answer as a whole, if it has at most `most` bytes.
pub(super) async fn whole(body: Body, most: usize) -> Result<Bytes, Unread> {
    let announced = body.size_hint().lower();
    let too_large = |size: u64| {
        let limit = most as u64;
        Unread::TooLarge(
            RequestError::too_expensive(
                size,
                limit,
                format!("the answer has more than the {limit} bytes that are given: ask for smaller pages, with `first`, or for less of each; a mutation was carried out all the same"),
            )
            .into(),
        )
    };
    if announced > most as u64 {
        return Err(too_large(announced));
    }
    match http_body_util::Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(too_large(most as u64 + 1))
        }
        Err(_) => Err(Unread::BrokenOff),
    }
}

/// An answer of an operation that came to nothing.
fn with_null(refused: &Refused) -> Bytes {
    serde_json::json!({ "data": null, "errors": refused.errors() })
        .to_string()
        .into()
}

fn written(document: &str, operation_name: Option<&str>, variables: Option<&str>) -> Bytes {
    let mut body = String::with_capacity(document.len() + variables.map_or(0, str::len) + 64);
    body.push_str("{\"query\":");
    body.push_str(&serde_json::Value::from(document).to_string());
    if let Some(name) = operation_name {
        body.push_str(",\"operationName\":");
        body.push_str(&serde_json::Value::from(name).to_string());
    }
    if let Some(variables) = variables {
        body.push_str(",\"variables\":");
        body.push_str(variables);
    }
    body.push('}');
    body.into()
}

fn json(status: StatusCode, format: Format, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    response
}

fn unreadable_answer(format: Format) -> Response<Body> {
    let refused: Refused = RequestError::new(
        StatusCode::BAD_GATEWAY,
        Code::Unavailable,
        "answer",
        "the answer broke off",
    )
    .into();
    json(StatusCode::BAD_GATEWAY, format, refused.body().into())
}

/// Whether a request belongs to the single connection mode of graphql-sse: one with the token that such a client is given by a PUT.
fn is_of_single_connection(parts: &Parts) -> bool {
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

fn single_connection_refused(status: StatusCode) -> Refused {
    RequestError::new(
        status,
        Code::BadUserInput,
        "single_connection",
        "the single connection mode of graphql-sse is not spoken here: use its distinct connections mode, a request with `accept: text/event-stream` for each subscription",
    )
    .into()
}

fn method_not_allowed(method: &Method) -> Response<Body> {
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

fn not_acceptable(kind: Kind) -> Response<Body> {
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

/// The codes of an answer's errors, each once, a few at most.
fn codes(answer: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<Told>,
    }
    #[derive(serde::Deserialize)]
    struct Told {
        #[serde(default)]
        extensions: Extensions,
    }
    #[derive(Default, serde::Deserialize)]
    struct Extensions {
        code: Option<String>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else {
        return Vec::new();
    };
    let mut codes: Vec<String> = answer
        .errors
        .into_iter()
        .map(|error| error.extensions.code.unwrap_or_else(|| "none".to_owned()))
        .map(|code| {
            code.chars()
                .take(64)
                .collect::<String>()
                .escape_debug()
                .to_string()
        })
        .collect();
    codes.sort();
    codes.dedup();
    codes.truncate(8);
    codes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::http::admission::{Most, Rate};
    use crate::settings::FrontDoorSettings;

    use super::*;

    fn graphql() -> Arc<GraphQl> {
        let settings = FrontDoorSettings::default();
        let subscriptions = Counter::new("test", Most::subscriptions(&settings));
        let time = settings.body_timeout();
        let rules = GraphQlRules::default();
        Arc::new(GraphQl::new(
            rules,
            time,
            1_000,
            subscriptions,
            Tasks::Shared,
        ))
    }

    /// Shares of a door that takes so many requests a second of each client.
    fn shares(rate_limit: u32) -> impl Fn(&str) -> Share {
        let rate = Arc::new(Rate::new(&FrontDoorSettings {
            rate_limit: rate_limit.try_into().unwrap(),
            ..FrontDoorSettings::default()
        }));
        move |address| Share::new(&rate, Client::of(address.parse().unwrap()))
    }

    async fn ask(graphql: &Arc<GraphQl>, query: String, share: &Share) -> Result<Ready, Code> {
        let call = Call {
            query: Some(query),
            ..Call::default()
        };
        let ready = graphql.ready(call, None, false, share).await;
        ready.map_err(|refused| refused.first().unwrap().code())
    }

    fn fields(first: usize, count: usize) -> String {
        format!("{{a{first} {}}}", "a ".repeat(count))
    }

    #[tokio::test]
    async fn large_documents_that_are_not_known_are_paid_for_by_their_tokens() {
        let (graphql, share) = (graphql(), shares(3_000));
        let (one, other) = (share("10.0.0.1"), share("10.0.0.2"));
        // 250 requests each: a dozen, and as many as come back meanwhile.
        let mut refused = None;
        for number in 0..1_000 {
            if let Err(code) = ask(&graphql, fields(number, 1_500), &one).await {
                refused = Some((number, code));
                break;
            }
        }
        let (count, code) = refused.unwrap();
        assert_eq!(code, Code::RateLimited);
        assert!(count >= 11, "{count}");
        assert!(ask(&graphql, fields(0, 1_500), &other).await.is_ok());
        // Small ones, and what is known, cost nothing beside their requests.
        for number in 0..1_000 {
            assert!(ask(&graphql, fields(number, 100), &one).await.is_ok());
            assert!(ask(&graphql, fields(0, 1_500), &one).await.is_ok());
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_what_is_taken_is_refused_before_it_is_paid_for_or_parsed() {
        let (graphql, share) = (graphql(), shares(3));
        let one = share("10.0.0.1");
        for _ in 0..100 {
            for query in [fields(0, 100_000), "{a".repeat(4_000)] {
                let refused = ask(&graphql, query, &one).await;
                assert_eq!(refused.map(|_| ()), Err(Code::BadUserInput));
            }
        }
    }

    #[tokio::test]
    async fn an_answer_larger_than_what_is_given_is_refused_whether_its_length_is_known_or_not() {
        let parts = |count: usize| {
            let part = || Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"));
            Body::from_stream(futures::stream::iter(
                std::iter::repeat_with(part).take(count),
            ))
        };
        for body in [Body::from(vec![b'x'; 101]), parts(11)] {
            let Err(Unread::TooLarge(refused)) = whole(body, 100).await else {
                panic!("it was taken");
            };
            let error = &refused.errors()[0];
            assert_eq!(error["extensions"]["code"], "TOO_EXPENSIVE");
            assert_eq!(error["extensions"]["limit"], 100);
        }
        for body in [Body::from(vec![b'x'; 100]), parts(10)] {
            let Ok(bytes) = whole(body, 100).await else {
                panic!("it was not taken");
            };
            assert_eq!(bytes.len(), 100);
        }
        let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        assert!(matches!(
            whole(Body::from_stream(broken), 100).await,
            Err(Unread::BrokenOff)
        ));
    }
}
