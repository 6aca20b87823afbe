//! The front door of a port: it runs the checks of every request in a fixed order.
//!
//! The order is: host name and origin, the client's share of the rate, the form of the request. Then the request goes
//! to GraphQL's protocols or to the inner server, which is behind the front door.

mod form;
mod listener;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use hyper::body::Incoming;
use tandem_authentication::{Access, Verifier};
use tokio::net::TcpListener;

use self::form::{
    finished, is_in_unknown_coding, name, size_of_head, wants_page, without_operation,
};
use self::listener::{LARGEST_HEAD, Open};
use crate::graphql::{
    GraphQl, GraphQlRules, Handshake, Inner, Refused, RequestError, is_upgrade, upgrade,
};
use crate::http::REQUEST_ID;
use crate::http::admission::{
    Client, Counted, Counter, Most, Rate, Share, TOO_FAST, cost_of_bytes, whole_seconds,
};
use crate::http::arriving::TOO_MUCH_ARRIVING;
use crate::http::body::{BodyLimits, BodyRefused, read};
use crate::http::connection::Times;
use crate::http::files;
use crate::http::media::{content_type, is_json};
use crate::http::notices::Notices;
use crate::http::origin::{self, From, Rules};
use crate::http::paths::{is_within, leads_elsewhere};
use crate::http::problem::{problem, retry_after};
use crate::http::serving::Serving;
use crate::http::unread::{TOO_MUCH_UNREAD, counted};
use crate::identity::{self, Identifier, Identity};
use crate::json::check_depth;
use crate::refusals;
use crate::runtime::Tasks;
use crate::settings::{FrontDoorSettings, SocketLimits};
use crate::shutdown::Stop;
use crate::tls::Tls;

/// The deepest nesting of JSON in bodies that are not GraphQL.
const JSON_DEPTH: usize = 32;

/// The front door of a port. All connections share it, even if several threads serve the port.
#[derive(Debug, Clone)]
pub struct FrontDoor {
    shared: Arc<Shared>,
    identifier: Identifier,
    tls: Option<Tls>,
    notices: Arc<Notices>,
}

#[derive(Debug)]
struct Shared {
    graphql: Arc<GraphQl>,
    rules: Rules,
    connections: Counter,
    in_flight: Counter,
    serving: Serving,
    rate: Arc<Rate>,
    times: Times,
    body: BodyLimits,
    sockets: SocketLimits,
    tasks: Tasks,
}

impl FrontDoor {
    /// Makes a front door with these settings and rules. `tasks` says where the inner server may run.
    #[must_use]
    pub fn new(settings: &FrontDoorSettings, rules: GraphQlRules, tasks: Tasks) -> Self {
        let body = BodyLimits {
            size: rules.body_size,
            time: settings.body_timeout(),
        };
        let files_each = rules.connections_behind_each.saturating_add(1);
        let subscriptions = Counter::new("front_door_subscriptions", Most::subscriptions(settings));
        let shared = Arc::new(Shared {
            graphql: Arc::new(GraphQl::new(
                rules,
                body.time,
                settings.max_answer,
                subscriptions,
                tasks,
            )),
            rules: Rules::new(settings),
            connections: Counter::new(
                "front_door_connections",
                Most {
                    of_all: files::connections(settings.max_connections, files_each),
                    of_address: settings.max_connections_per_client,
                    // The subject is not known yet when a connection is admitted.
                    of_subject: settings.max_connections_per_client,
                },
            ),
            // It has no gauge: each request would update the gauge twice.
            in_flight: Counter::new(None::<&str>, Most::in_flight(settings)),
            serving: Serving::watched(),
            rate: Arc::new(Rate::new(settings)),
            times: Times {
                head: settings.header_timeout(),
                idle: settings.idle_timeout(),
            },
            body,
            sockets: settings.sockets(),
            tasks,
        });
        Self {
            shared,
            identifier: Identifier::default(),
            tls: None,
            notices: Arc::default(),
        }
    }

    /// Lets the port speak TLS. Without it the port speaks plain HTTP.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Adds these headers to every answer on their paths, refusals included.
    #[must_use]
    pub fn with_notices(self, notices: Notices) -> Self {
        Self {
            notices: Arc::new(notices),
            ..self
        }
    }

    /// Verifies tokens. Without a verifier every caller may do everything.
    ///
    /// A subscription outlives its token by `grace`. Where two front doors stand in a row, this lets the one that the
    /// client talks to end the subscription first and state the reason.
    #[must_use]
    pub fn verifying(self, verifier: Option<Verifier>, grace: Duration) -> Self {
        Self {
            identifier: Identifier::new(verifier, grace),
            ..self
        }
    }

    /// Serves a port until it is told to stop. Then it waits for open requests for at most `drain`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve<I: Inner>(
        &self,
        listener: TcpListener,
        inner: I,
        stop: Stop,
        drain: Duration,
    ) -> std::io::Result<()> {
        // Not in `new`: the metrics recorder is installed only later.
        refusals::show();
        let door = Door {
            shared: Arc::clone(&self.shared),
            identifier: self.identifier.clone(),
            tls: self.tls.clone(),
            notices: Arc::clone(&self.notices),
            inner,
            stop: stop.clone(),
        };
        listener::serve(listener, door, stop, drain).await
    }
}

/// The front door of one listener, with its inner server.
#[derive(Debug, Clone)]
pub(crate) struct Door<I> {
    shared: Arc<Shared>,
    identifier: Identifier,
    tls: Option<Tls>,
    notices: Arc<Notices>,
    inner: I,
    stop: Stop,
}

impl<I: Inner> Door<I> {
    pub(crate) fn tasks(&self) -> Tasks {
        self.shared.tasks
    }

    pub(crate) fn times(&self) -> Times {
        self.shared.times
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn admit(&self, client: Client) -> Option<Counted> {
        self.shared.connections.admit(client)
    }

    /// Answers a request on the connection `open`. A WebSocket holds `open`, so the connection stays counted and the
    /// shutdown waits for it.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        local: IpAddr,
        open: Arc<Open>,
        is_certified: bool,
    ) -> Response<Body> {
        let uri = request.uri().clone();
        let judged = self.judged(request, peer, local, open, is_certified);
        let mut response = judged.await;
        self.notices.add_to(uri.path(), response.headers_mut());
        response
    }

    async fn judged(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        local: IpAddr,
        open: Arc<Open>,
        is_certified: bool,
    ) -> Response<Body> {
        const CERTIFICATE: &str =
            "this port answers those who show a certificate of the system's authority";
        const TOO_LARGE: &str = "the head of a request has at most 64 KiB here";
        const UNKNOWN_CODING: &str =
            "send the body as it is, or with `transfer-encoding: chunked` alone";
        let (mut parts, body) = request.into_parts();
        let id = name(&mut parts);
        // Probes and metric scrapers have no certificate.
        if !is_certified && !parts.uri.path().starts_with("/actuator/") {
            refused("certificate");
            let response = problem(StatusCode::FORBIDDEN, parts.uri.path(), CERTIFICATE);
            return finished(response, &From::Here, false, id);
        }
        // The HTTP server reads in large steps and by itself refuses only heads of about twice this size.
        if size_of_head(&parts) > LARGEST_HEAD {
            refused("head");
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let response = problem(status, parts.uri.path(), TOO_LARGE);
            return finished(response, &From::Here, false, id);
        }
        if is_in_unknown_coding(&parts.headers) {
            refused("body");
            let status = StatusCode::NOT_IMPLEMENTED;
            let response = problem(status, parts.uri.path(), UNKNOWN_CODING);
            return finished(response, &From::Here, false, id);
        }
        let authority = parts.uri.authority().map(ToString::to_string);
        let judged =
            self.shared
                .rules
                .judge(&parts.method, &parts.headers, authority.as_deref(), local);
        let from = match judged {
            Ok(from) => from,
            Err(foreign) => {
                refused(foreign.reason);
                let response = problem(foreign.status, parts.uri.path(), foreign.detail);
                return finished(response, &From::Here, false, id);
            }
        };
        let is_preflight = origin::is_preflight(&parts.method, &parts.headers);
        let response = if is_preflight {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        } else {
            parts.extensions.insert(ConnectInfo(peer));
            self.admitted(parts, body, peer, open).await
        };
        finished(response, &from, is_preflight, id)
    }

    async fn admitted(
        &self,
        mut parts: Parts,
        body: Incoming,
        peer: SocketAddr,
        open: Arc<Open>,
    ) -> Response<Body> {
        let address = Client::of(peer.ip());
        // A verified caller is counted by subject, whatever its address. A caller whose token is not verified yet is
        // first counted by address, because verification is expensive.
        let known = self.identifier.remembered(&parts.headers);
        if known.is_none()
            && let Err(wait) = self.shared.rate.take(address)
        {
            return self.too_much(&parts.uri, whole_seconds(wait), TOO_FAST);
        }
        // A request counts while its body is still arriving: slow senders must leave room for others.
        let asking = known
            .as_ref()
            .map_or(address, |known| known.client(address));
        let Some(_in_flight) = self.shared.in_flight.admit(asking) else {
            return self.too_much(
                &parts.uri,
                1,
                "more requests are being answered than this port takes at once, of all or of one client",
            );
        };
        let id = parts.headers.get(REQUEST_ID);
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        // This covers the time until the answer begins. Sending the rest does not block a thread.
        let served = self.shared.serving.begin(&parts, id);
        let identity = match known {
            Some(identity) => identity,
            None => self.identifier.identify(&parts.headers).await,
        };
        let client = identity.client(address);
        if client != address
            && let Err(wait) = self.shared.rate.take(client)
        {
            return self.too_much(&parts.uri, whole_seconds(wait), TOO_FAST);
        }
        let graphql = &self.shared.graphql;
        let path = parts.uri.path();
        let is_graphql = path == graphql.path();
        let is_socket = is_graphql
            || path
                .strip_prefix(graphql.path())
                .is_some_and(|rest| rest == "/ws");
        if is_socket && is_upgrade(&parts) {
            let mut request = Request::from_parts(parts, ());
            let upgraded = hyper::upgrade::on(&mut request);
            let (mut parts, ()) = request.into_parts();
            // The session holds this through its origin, so the connection stays open.
            parts.extensions.insert(open);
            return upgrade(
                graphql,
                &self.inner,
                Handshake {
                    address,
                    identity,
                    identifier: self.identifier.clone(),
                    rate: Arc::clone(&self.shared.rate),
                },
                &parts,
                upgraded,
                self.shared.sockets,
                &self.stop,
            );
        }
        let share = Share::new(&self.shared.rate, client);
        let uri = parts.uri.clone();
        if leads_elsewhere(uri.path()) {
            refused("path");
            // Some clients read no answer until they have written their whole request.
            self.discard(&parts, body, client).await;
            let detail = "a path has no segments `.` and `..` here, and no backslashes";
            return problem(StatusCode::BAD_REQUEST, uri.path(), detail);
        }
        let is_operation = is_graphql && !wants_page(&parts);
        if !is_operation && is_within(uri.path(), graphql.path()) {
            if parts.method != Method::GET && parts.method != Method::HEAD {
                refused("path");
                // Some clients read no answer until they have written their whole request.
                self.discard(&parts, body, client).await;
                let detail = format!("operations are taken at {} alone", graphql.path());
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = problem(status, uri.path(), &detail);
                let takes = HeaderValue::from_static("GET, HEAD");
                response.headers_mut().insert(header::ALLOW, takes);
                return response;
            }
            // This asks for a page or a part of one. Nobody has checked an operation, so the inner server must not
            // find one in it.
            without_operation(&mut parts);
        }
        let response = if is_operation {
            parts.extensions.insert(served.about());
            graphql
                .answer(&self.inner, share, &identity, parts, body, &self.stop)
                .await
        } else {
            if parts.method == Method::HEAD {
                // hyper sends no body in answer to HEAD, so the inner server only needs to know GET.
                parts.method = Method::GET;
            }
            self.other(&share, &identity, parts, body).await
        };
        counted(response, graphql.answers(), client)
            .unwrap_or_else(|_| self.too_much(&uri, 1, TOO_MUCH_UNREAD))
    }

    /// Answers everything that is not GraphQL. It reads the body here, within its bounds.
    async fn other(
        &self,
        share: &Share,
        identity: &Identity,
        mut parts: Parts,
        body: Incoming,
    ) -> Response<Body> {
        match identity.access() {
            Ok(access) => {
                parts.extensions.insert(access);
            }
            Err(_) if identity::is_without_token(parts.uri.path()) => {
                parts.extensions.insert(Access::Anonymous);
            }
            Err(rejection) => {
                refused("token");
                // Some clients read no answer until they have written their whole request.
                self.discard(&parts, body, share.client()).await;
                let status = identity::status(&rejection);
                let response = problem(status, parts.uri.path(), &rejection.to_string());
                return identity::challenge(response, &rejection);
            }
        }
        let has_body = parts.headers.contains_key(header::TRANSFER_ENCODING)
            || parts
                .headers
                .get(header::CONTENT_LENGTH)
                .is_some_and(|length| length != "0");
        if !has_body {
            return self
                .inner
                .answer(Request::from_parts(parts, Body::empty()))
                .await;
        }
        let path = parts.uri.path().to_owned();
        let is_right = content_type(&parts.headers).is_some_and(|range| is_json(&range, true));
        let mut arriving = self.shared.graphql.arriving(share.client());
        let body = read(&parts.headers, body, self.shared.body, &mut arriving).await;
        if body == Err(BodyRefused::NoRoom) {
            return self.too_much(&parts.uri, 1, TOO_MUCH_ARRIVING);
        }
        let is_too_large = matches!(body, Err(BodyRefused::TooLarge(_)));
        if !is_right && !is_too_large {
            refused("media_type");
            return problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &path,
                "send JSON, with `content-type: application/json`",
            );
        }
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                refused("body");
                return problem(error.status(), &path, &error.to_string());
            }
        };
        if let Err(wait) = share.pay(cost_of_bytes(body.len())) {
            return self.too_much(&parts.uri, whole_seconds(wait), TOO_FAST);
        }
        if let Err(error) = check_depth(&body, JSON_DEPTH) {
            refused("depth");
            return problem(StatusCode::BAD_REQUEST, &path, &error.to_string());
        }
        drop(arriving);
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.inner
            .answer(Request::from_parts(parts, Body::from(body)))
            .await
    }

    /// Reads a body to its end and drops it.
    async fn discard(&self, parts: &Parts, body: Incoming, client: Client) {
        let mut arriving = self.shared.graphql.arriving(client);
        let _ = read(&parts.headers, body, self.shared.body, &mut arriving).await;
    }

    fn too_much(&self, uri: &Uri, seconds: u64, detail: &str) -> Response<Body> {
        refused("rate");
        let mut response = if uri.path() == self.shared.graphql.path() {
            let error: Refused = RequestError::rate_limited(seconds, detail).into();
            let mut response = Response::new(Body::from(Bytes::from(error.body())));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response
        } else {
            problem(StatusCode::TOO_MANY_REQUESTS, uri.path(), detail)
        };
        retry_after(&mut response, seconds);
        response
    }
}

fn refused(reason: &'static str) {
    refusals::count(reason);
}
