//! The door itself: what every request passes, in this order: names and origins, its client's share, its form, and then GraphQL's
//! protocols or whatever stands behind.

mod listener;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::Incoming;
use tandem_authentication::{Access, Verifier};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::listener::{LARGEST_HEAD, Open};
use crate::graphql::{
    GraphQl, GraphQlRules, Handshake, Inner, Refused, RequestError, is_upgrade, upgrade,
};
use crate::http::admission::{
    Client, Counted, Counter, Most, Rate, Share, TOO_FAST, cost_of_bytes, whole_seconds,
};
use crate::http::body::{BodyLimits, BodyRefused, read};
use crate::http::connection::Times;
use crate::http::files;
use crate::http::media::{accepted, content_type, is_json};
use crate::http::origin::{self, From, Rules};
use crate::http::page;
use crate::http::problem::{problem, retry_after};
use crate::http::serving::Serving;
use crate::identity::{self, Identifier, Identity};
use crate::json::check_depth;
use crate::refusals;
use crate::runtime::Tasks;
use crate::settings::{FrontDoorSettings, SocketLimits};
use crate::shutdown::Stop;
use crate::tls::Tls;

/// The longest request id that is taken over from a caller, in bytes.
const LONGEST_REQUEST_ID: usize = 128;
const REQUEST_ID: &str = "x-request-id";
/// The deepest nesting of JSON in bodies that are no GraphQL.
const JSON_DEPTH: usize = 32;

/// What all connections of a port share. It is made once, also where several threads serve the port.
#[derive(Debug, Clone)]
pub struct FrontDoor {
    shared: Arc<Shared>,
    identifier: Identifier,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Shared {
    graphql: Arc<GraphQl>,
    rules: Rules,
    connections: Counter,
    in_flight: Arc<Semaphore>,
    serving: Serving,
    rate: Arc<Rate>,
    times: Times,
    body: BodyLimits,
    sockets: SocketLimits,
    tasks: Tasks,
}

impl FrontDoor {
    /// A door by these settings and rules. `tasks` says where what stands behind may run.
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
                    // A connection is there before anybody says who it is.
                    of_subject: settings.max_connections_per_client,
                },
            ),
            in_flight: Arc::new(Semaphore::new(settings.max_in_flight)),
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
        }
    }

    /// Speaks TLS; without it HTTP in clear.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls, ..self }
    }

    /// Verifies tokens; without a verifier everybody may do everything. Subscriptions go on for `grace` after their token, so that of
    /// two doors on the way the one that the client sees is the first to say why.
    #[must_use]
    pub fn verifying(self, verifier: Option<Verifier>, grace: Duration) -> Self {
        Self {
            identifier: Identifier::new(verifier, grace),
            ..self
        }
    }

    /// Serves a port until it is time to stop, then lets open requests end for at most `drain`.
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
        // Here, and not when the door is made: metrics are recorded by now.
        refusals::show();
        let door = Door {
            shared: Arc::clone(&self.shared),
            identifier: self.identifier.clone(),
            tls: self.tls.clone(),
            inner,
            stop: stop.clone(),
        };
        listener::serve(listener, door, stop, drain).await
    }
}

/// The door of one listener, and what stands behind it.
#[derive(Debug, Clone)]
pub(crate) struct Door<I> {
    shared: Arc<Shared>,
    identifier: Identifier,
    tls: Option<Tls>,
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

    /// Answers a request. `open` is its connection, which counts as open, and is waited for, while a WebSocket lives on.
    pub(crate) async fn answer(
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
        let (mut parts, body) = request.into_parts();
        let id = name(&mut parts);
        // Probes and whoever reads metrics have none.
        if !is_certified && !parts.uri.path().starts_with("/actuator/") {
            refused("certificate");
            let response = problem(StatusCode::FORBIDDEN, parts.uri.path(), CERTIFICATE);
            return finished(response, &From::Here, false, id);
        }
        // The server reads in large steps, and refuses what is twice as much by itself.
        if size_of_head(&parts) > LARGEST_HEAD {
            refused("head");
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let response = problem(status, parts.uri.path(), TOO_LARGE);
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
        // Who is known is counted by their subject, wherever from; who has yet to be verified, which costs more, by the address first.
        let known = self.identifier.remembered(&parts.headers);
        if known.is_none()
            && let Err(wait) = self.shared.rate.take(address)
        {
            return self.too_much(&parts, whole_seconds(wait), TOO_FAST);
        }
        let Ok(_permit) = Arc::clone(&self.shared.in_flight).try_acquire_owned() else {
            return self.too_much(
                &parts,
                1,
                "more requests are being answered than this port takes at once",
            );
        };
        let id = parts.headers.get(REQUEST_ID);
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        // Until the answer begins: what is sent then does not keep a thread.
        let served = self.shared.serving.begin(&parts, id);
        let identity = match known {
            Some(identity) => identity,
            None => self.identifier.identify(&parts.headers).await,
        };
        let client = identity.client(address);
        if client != address
            && let Err(wait) = self.shared.rate.take(client)
        {
            return self.too_much(&parts, whole_seconds(wait), TOO_FAST);
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
            // The connection stays open as long as the session has its origin.
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
        if is_graphql && !wants_page(&parts) {
            parts.extensions.insert(served.about());
            return graphql
                .answer(&self.inner, share, &identity, parts, body, &self.stop)
                .await;
        }
        if parts.method == Method::HEAD {
            // The server sends no body to a HEAD; what stands behind need not know of it.
            parts.method = Method::GET;
        }
        self.other(&share, &identity, parts, body).await
    }

    /// Everything that is no GraphQL: its body is read here, within its bounds.
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
                // Some clients read no answer before they have written all.
                let _ = read(&parts.headers, body, self.shared.body).await;
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
        let body = read(&parts.headers, body, self.shared.body).await;
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
            return self.too_much(&parts, whole_seconds(wait), TOO_FAST);
        }
        if let Err(error) = check_depth(&body, JSON_DEPTH) {
            refused("depth");
            return problem(StatusCode::BAD_REQUEST, &path, &error.to_string());
        }
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.inner
            .answer(Request::from_parts(parts, Body::from(body)))
            .await
    }

    fn too_much(&self, parts: &Parts, seconds: u64, detail: &str) -> Response<Body> {
        refused("rate");
        let mut response = if parts.uri.path() == self.shared.graphql.path() {
            let error: Refused = RequestError::rate_limited(seconds, detail).into();
            let mut response = Response::new(Body::from(Bytes::from(error.body())));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response
        } else {
            problem(StatusCode::TOO_MANY_REQUESTS, parts.uri.path(), detail)
        };
        retry_after(&mut response, seconds);
        response
    }
}

fn refused(reason: &'static str) {
    refusals::count(reason);
}

/// Bytes of the head of a request, as they are written (RFC 9112).
fn size_of_head(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
    let headers = parts.headers.iter();
    headers.fold(target, |size, (name, value)| {
        size + name.as_str().len() + value.len() + ": \r\n".len()
    })
}

/// Takes the caller's request id over, or makes one.
fn name(parts: &mut Parts) -> Option<HeaderValue> {
    let given = parts
        .headers
        .get(REQUEST_ID)
        .filter(|id| {
            !id.is_empty()
                && id.len() <= LONGEST_REQUEST_ID
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .cloned();
    let id = given.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).ok())?;
    parts.headers.insert(REQUEST_ID, id.clone());
    Some(id)
}

/// Whether a browser asks for the page that is at the same address.
fn wants_page(parts: &Parts) -> bool {
    let is_get = parts.method == Method::GET || parts.method == Method::HEAD;
    let mut ranges = accepted(&parts.headers).unwrap_or_default();
    // The first of those that are liked best; the order stays.
    ranges.sort_by_key(|range| std::cmp::Reverse(range.quality));
    is_get
        && ranges.first().is_some_and(|range| {
            range.essence == "text/html" || range.essence == "application/xhtml+xml"
        })
}

fn finished(
    mut response: Response<Body>,
    from: &From,
    is_preflight: bool,
    id: Option<HeaderValue>,
) -> Response<Body> {
    let headers = response.headers_mut();
    origin::answer(from, is_preflight, headers);
    page::secure(headers);
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    response
}
