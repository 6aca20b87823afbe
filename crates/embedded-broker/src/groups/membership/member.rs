//! One member of a group: its protocols, its last sign of life, and the answers that it waits for.

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

    /// Whether the session has expired. A member that waits for an answer is alive, however long that takes.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        !self.is_joining() && !self.is_syncing() && now > self.heard + self.session
    }

    /// When the session may expire without a sign of life. It is `soon` while the member waits for an answer, because
    /// nothing notifies when its connection breaks.
    pub(super) fn due(&self, soon: Instant) -> Instant {
        if self.is_joining() || self.is_syncing() {
            soon
        } else {
            // The session expires after this time, not at it.
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
