//! The GraphQL endpoint of one port: the state that all requests share, over HTTP and over WebSockets.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use tokio::time::Instant;

use super::chosen_operation::Chosen;
use super::document::Documents;
use super::document_limits::DocumentLimits;
use super::events::{self, Held, Receiver};
use super::forwarding::Bounds;
use super::inner::Origin;
use super::persisted::{Persisted, TrustedDocuments};
use super::schema::GraphSchema;
use super::treatment::Treatment;
use crate::http::admission::{Client, Counter, Most};
use crate::http::arriving::{Arriving, largest};
use crate::http::aside::Aside;
use crate::http::body::BodyLimits;
use crate::http::turns::{Turn, Turns};
use crate::runtime::{Task, Tasks};

/// How GraphQL is served.
#[derive(Debug, Clone)]
pub struct GraphQlRules {
    /// The schema for validation. Without it documents are only parsed and counted.
    pub schema: Option<GraphSchema>,
    /// The size limits of documents.
    pub limits: DocumentLimits,
    /// How documents are rewritten.
    pub treatment: Treatment,
    /// If this is set, only these documents are executed.
    pub trusted: Option<TrustedDocuments>,
    /// The path of the endpoint, such as `/graphql`. WebSockets are also served at `/graphql/ws`.
    pub path: Arc<str>,
    /// The deepest nesting of JSON.
    pub json_depth: usize,
    /// The largest body of a request, in bytes.
    pub body_size: usize,
    /// Whether refusals and errors in answers are logged.
    pub log_errors: bool,
    /// Whether the executor of subscriptions waits until the client has read an event. An executor that drops events
    /// instead is read ahead.
    pub waits_for_clients: bool,
    /// How many subscriptions of one client are set up at once. Its further ones wait for their turn.
    pub set_ups_per_client: usize,
    /// How many connections behind this front door each client connection needs. A gateway opens one to a service for
    /// each subscriber.
    pub connections_behind_each: u64,
    /// The time limit of a query or mutation, for all of its steps together. `None` if the executor has its own limit.
    pub operation_time: Option<Duration>,
    /// Whether gateways call this port, each for many clients. Then only subjects of tokens are charged for large
    /// answers, not addresses.
    pub serves_gateways: bool,
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
            connections_behind_each: 0,
            operation_time: None,
            serves_gateways: false,
        }
    }
}

/// The state that all GraphQL requests share.
#[derive(Debug)]
pub(crate) struct GraphQl {
    pub(super) documents: Documents,
    pub(super) persisted: Persisted,
    pub(super) held: Held,
    pub(super) subscriptions: Counter,
    /// The turns of subscriptions that are being set up. A subscription that the client ended meanwhile keeps its turn,
    /// because setting one up costs a router much more than keeping it open.
    set_ups: Turns,
    pub(super) aside: Aside,
    pub(super) path: Arc<str>,
    pub(super) json_depth: usize,
    pub(super) body: BodyLimits,
    /// The largest answer, in bytes.
    pub(super) max_answer: usize,
    operation_time: Option<Duration>,
    /// Counts the bytes of large answers that clients have not read yet.
    pub(super) answers: Counter,
    /// Counts the bytes of bodies that are still arriving.
    arriving: Counter,
    pub(super) log_errors: bool,
    waits_for_clients: bool,
    pub(super) serves_gateways: bool,
    pub(super) tasks: Tasks,
}

impl GraphQl {
    pub(crate) fn new(
        rules: GraphQlRules,
        body_time: Duration,
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
            operation_time: rules.operation_time,
            answers: Counter::new("front_door_unread_bytes", Most::answer_bytes(max_answer)),
            arriving: Counter::new(
                "front_door_arriving_bytes",
                Most::body_bytes(largest(rules.body_size)),
            ),
            log_errors: rules.log_errors,
            waits_for_clients: rules.waits_for_clients,
            serves_gateways: rules.serves_gateways,
            tasks,
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What the operations inherit that come by this request. With a schema, their variables are checked before they
    /// are forwarded.
    pub(super) fn origin(&self, parts: &Parts) -> Origin {
        let origin = Origin::new(&self.path, &parts.headers, &parts.extensions);
        match self.documents.schema() {
            Some(_) => origin.with_checked_variables(),
            None => origin,
        }
    }

    /// The limits of a query or mutation.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            answer: self.max_answer,
            time: self.operation_time,
        }
    }

    /// Counts the bytes of large answers that clients have not read yet.
    pub(crate) fn answers(&self) -> &Counter {
        &self.answers
    }

    /// Begins to count a body of this client, at any path.
    pub(crate) fn arriving(&self, client: Client) -> Arriving {
        Arriving::new(&self.arriving, client)
    }

    /// Waits for this client's turn to set up a subscription. As many may wait as there may be subscriptions.
    pub(super) async fn turn(&self, client: Client) -> Option<Turn> {
        Some(self.set_ups.join(client)?.turn().await)
    }

    /// The events of a subscription, and the task that reads them ahead, if that is needed.
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

pub(super) const TOO_MANY_SUBSCRIPTIONS: &str =
    "so many subscriptions of one client are not taken at once: end some first";
