//! A reader by assignment.

use async_trait::async_trait;
use tandem_event_path::log::{Arrival, Attention, LogError, Offsets, Tail};

use super::{Cluster, feed::Feed, patience_of};

/// Reads partitions by assignment, without a group.
pub(super) struct SimTail(Feed);

impl std::fmt::Debug for SimTail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SimTail")
    }
}

impl SimTail {
    pub(super) fn open(
        cluster: &Cluster,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Self {
        let feed = Feed::new(cluster, topic, patience_of(attention));
        feed.assign(from);
        if cluster.partitions(topic) > from.len() {
            cluster.notice_later(feed.clone());
        }
        Self(feed)
    }
}

#[async_trait]
impl Tail for SimTail {
    fn assign(&self, from: &Offsets) -> Result<(), LogError> {
        self.0.assign(from);
        Ok(())
    }

    async fn next(&self) -> Result<Arrival, LogError> {
        loop {
            if let Some(arrival) = self.0.take() {
                return Ok(arrival);
            }
            if self.0.state().is_broken {
                return Err(LogError::Ended("the client cannot go on".to_owned()));
            }
            self.0.fetch();
            self.0.0.came.notified().await;
        }
    }

    fn next_ready(&self) -> Option<Arrival> {
        self.0.take()
    }
}
