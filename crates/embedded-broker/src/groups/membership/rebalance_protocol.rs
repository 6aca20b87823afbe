//! The requests of clients to the coordinator of their group, and the answers.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// The client's own name, which is the beginning of its member id.
    pub(crate) client: String,
    /// Its member id; empty at the first join.
    pub(crate) member: String,
    /// The name with which a static member (KIP-345) comes back.
    pub(crate) instance: Option<String>,
    /// The protocol type, such as `consumer`.
    pub(crate) kind: String,
    /// The protocols that the member supports, in order of preference: the name, and metadata for the leader.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// The session timeout.
    pub(crate) session: Duration,
    /// The rebalance timeout: how long the member may take to join again.
    pub(crate) rebalance: Duration,
}

/// The answer to a member when a generation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// All members, with instance and metadata. Only the leader gets them.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// Why a request was refused, and the member id for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ResponseError,
    pub(crate) member: String,
}

pub(crate) type JoinAnswer = Result<Joined, Refusal>;
pub(crate) type SyncAnswer = Result<Bytes, ResponseError>;
