//! A service that wants to use topics, with what it knows about itself.

use std::sync::Arc;

use crate::{data_keys::Role, sealing::Sealer, store::Registry};

/// A service that starts on the topics.
#[derive(Clone)]
pub struct Claimant {
    /// Its name, such as `accounts`.
    pub service: &'static str,
    /// The owner of the topic of keys claims the topics. A reader, which may have no right to write there, relies on
    /// that claim.
    pub role: Role,
    /// The name of one of its projections. The consumer group of that projection shows whether an instance is
    /// running.
    pub projection: &'static str,
    /// The topics of events that the service writes or reads.
    pub topics: Vec<&'static str>,
    /// The identity of its store.
    pub store: String,
    /// Its sealing key.
    pub sealer: Sealer,
    /// The registry of its store.
    pub registry: Arc<dyn Registry>,
    /// Whether it takes over topics that another system has claimed, by an operator's order.
    pub takes_over: bool,
}
