//! The endpoint of GraphQL on one port, as all requests for it share it, whether they come by HTTP or over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use tokio::time::Instant;

use super::chosen_operation::Chosen;
use super::document::Documents;
use super::document_limits::DocumentLimits;
use super::events::{self, Held, Receiver};
use super::forwarding::Bounds;
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
    /// Connections that each of a client's needs behind this door: a gateway takes one to a service for each that watches.
    pub connections_behind_each: u64,
    /// How long an operation may take that is no subscription, all of its steps together; any, where what carries it out has a limit of its own.
    pub operation_time: Option<Duration>,
    /// Whether gateways call this port, each for many clients: what a large answer costs is then paid by subjects of tokens alone, not by addresses.
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
    pub(super) aside: Aside,
    pub(super) path: Arc<str>,
    pub(super) json_depth: usize,
    pub(super) body: BodyLimits,
    /// The largest answer, in bytes.
    pub(super) max_answer: usize,
    operation_time: Option<Duration>,
    /// Bytes of large answers that clients have yet to read.
    pub(super) answers: Counter,
    /// Bytes of bodies that are still arriving.
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

    /// What an operation may take that is no subscription.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            answer: self.max_answer,
            time: self.operation_time,
        }
    }

    /// Bytes of large answers that clients have yet to read.
    pub(crate) fn answers(&self) -> &Counter {
        &self.answers
    }

    /// A body of this client that begins to arrive, at this path or another.
    pub(crate) fn arriving(&self, client: Client) -> Arriving {
        Arriving::new(&self.arriving, client)
    }

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

pub(super) const TOO_MANY_SUBSCRIPTIONS: &str =
    "so many subscriptions of one client are not taken at once: end some first";
