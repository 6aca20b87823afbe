//! What clients ask of the coordinator of their group, and what they are answered.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// What the client calls itself: the beginning of its member id.
    pub(crate) client: String,
    /// Its id; empty the first time.
    pub(crate) member: String,
    /// The name under which a static member (KIP-345) comes back.
    pub(crate) instance: Option<String>,
    /// Such as `consumer`.
    pub(crate) kind: String,
    /// What it can work with, the best first: the name and what the leader has to know.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// It is put out when it is not heard of for so long.
    pub(crate) session: Duration,
    /// How long it may take to join again.
    pub(crate) rebalance: Duration,
}

/// What a member is told when a generation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// Everybody, with instance and metadata: for the leader alone.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// Why a request was refused, and the member id that the answer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ResponseError,
    pub(crate) member: String,
}

pub(crate) type JoinAnswer = Result<Joined, Refusal>;
pub(crate) type SyncAnswer = Result<Bytes, ResponseError>;
