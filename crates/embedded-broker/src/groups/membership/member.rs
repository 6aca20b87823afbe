//! One member of a group: what it can work with, when it was heard of last, and which answers it waits for.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::rebalance_protocol::{JoinAnswer, SyncAnswer};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) client: String,
    pub(super) instance: Option<String>,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) session: Duration,
    pub(super) rebalance: Duration,
    pub(super) heard: Instant,
    pub(super) assignment: Bytes,
    pub(super) joining: Option<oneshot::Sender<JoinAnswer>>,
    pub(super) syncing: Option<oneshot::Sender<SyncAnswer>>,
}

impl Member {
    pub(super) fn is_joining(&self) -> bool {
        self.joining
            .as_ref()
            .is_some_and(|answer| !answer.is_closed())
    }

    fn is_syncing(&self) -> bool {
        self.syncing
            .as_ref()
            .is_some_and(|answer| !answer.is_closed())
    }

    /// One that waits for an answer is there, however long that takes.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        !self.is_joining() && !self.is_syncing() && now > self.heard + self.session
    }

    /// When it may be lost, if it is not heard of before; `soon` while it waits for an answer, for nothing tells when its connection breaks.
    pub(super) fn due(&self, soon: Instant) -> Instant {
        if self.is_joining() || self.is_syncing() {
            soon
        } else {
            // It is lost behind this moment, not at it.
            self.heard + self.session + Duration::from_millis(1)
        }
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let of = |(name, metadata): &(String, Bytes)| (name == protocol).then(|| metadata.clone());
        self.protocols.iter().find_map(of).unwrap_or_default()
    }

    pub(super) fn takes(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}
