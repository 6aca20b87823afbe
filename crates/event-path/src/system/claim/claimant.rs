//! A service that wants to use topics, with what it knows of itself.

use std::sync::Arc;

use crate::{data_keys::Role, sealing::Sealer, store::Registry};

/// A service as it comes to topics.
#[derive(Clone)]
pub struct Claimant {
    /// Its name, such as `accounts`.
    pub service: &'static str,
    /// The owner of the topic of keys claims the topics. A reader, which may not be allowed to write there, goes by that claim.
    pub role: Role,
    /// The name of a projection of its own, by whose consumer group a running instance is known.
    pub projection: &'static str,
    /// The topics of events that it writes or reads.
    pub topics: Vec<&'static str>,
    /// The identity of its store.
    pub store: String,
    /// Its sealing key.
    pub sealer: Sealer,
    /// What its store remembers.
    pub registry: Arc<dyn Registry>,
    /// Whether it takes over topics that another system has claimed: an operator's order.
    pub takes_over: bool,
}
