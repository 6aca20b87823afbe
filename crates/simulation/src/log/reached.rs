//! The log port, as one process reaches the simulated log.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_event_path::log::{
    Attention, Ends, Log, LogError, Member, Membership, Offsets, PublishError, Publisher, Record,
    Tail, TopicState,
};
use tandem_model::message::Position;

use super::{
    Cluster, LARGEST_RECORD, away, member::SimMember, publisher::SimPublisher, tail::SimTail,
    topic::Partition,
};
use crate::{chance::draw, process::Process};

/// The log, as one process reaches it.
#[derive(Clone, Debug)]
pub struct SimLog {
    cluster: Cluster,
    process: Process,
}

impl SimLog {
    /// This log, reached from this process.
    #[must_use]
    pub fn new(cluster: &Cluster, process: &Process) -> Self {
        Self {
            cluster: cluster.clone(),
            process: process.clone(),
        }
    }
}

impl SimLog {
    /// Queries the ends of a topic. `end` selects the kind of end.
    async fn ends(&self, topic: &str, end: fn(&Partition) -> i64) -> Result<Ends, LogError> {
        let (cluster, topic) = (self.cluster.clone(), topic.to_owned());
        let odds = cluster.odds();
        let is_lost = draw(|chance| chance.happens(odds.lost_question));
        let delay = draw(|chance| chance.between(1, if is_lost { 10_000 } else { 8 }));
        let world = self.cluster.world();
        let asked = world.effect(Duration::from_millis(delay), move || {
            if is_lost || cluster.is_away() {
                return Err(away());
            }
            let state = cluster.state();
            let found = state.topics.get(&topic);
            let found = found.ok_or(LogError::NoPartitions(topic))?;
            let partitions = (0..).zip(&found.partitions);
            Ok(partitions
                .map(|(number, partition)| (number, (partition.low(), end(partition))))
                .collect())
        });
        asked.await
    }
}

#[async_trait]
impl Log for SimLog {
    async fn ready(&self) -> bool {
        let stop = self.process.shutdown.token();
        loop {
            let cluster = self.cluster.clone();
            let delay = draw(|chance| chance.between(2, 40));
            let delay = Duration::from_millis(delay);
            let asking = self
                .cluster
                .world()
                .effect(delay, move || !cluster.is_away());
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                is_there = asking => if is_there {
                    return true;
                }
            }
            let pause = draw(|chance| chance.between(100, 400));
            self.cluster
                .world()
                .sleep(Duration::from_millis(pause))
                .await;
        }
    }

    fn failure(&self) -> Option<String> {
        self.cluster.is_away().then(|| away().to_string())
    }

    fn largest_record(&self) -> usize {
        LARGEST_RECORD
    }

    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        Ok(Arc::new(SimPublisher::new(&self.cluster, &self.process)))
    }

    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError> {
        let publisher = SimPublisher::new(&self.cluster, &self.process);
        publisher.send(&record)?.await
    }

    async fn topic(&self, topic: &str) -> Result<TopicState, LogError> {
        let ends = self.ends(topic, Partition::stable).await?;
        let identity = None;
        Ok(TopicState { identity, ends })
    }

    async fn uncommitted_ends(&self, topic: &str) -> Result<Ends, LogError> {
        self.ends(topic, Partition::high).await
    }

    async fn has_members(&self, group: &str) -> Result<bool, LogError> {
        let (cluster, group) = (self.cluster.clone(), group.to_owned());
        let world = self.cluster.world();
        let asked = world.effect(Duration::from_millis(3), move || {
            if cluster.is_away() {
                return Err(away());
            }
            Ok(cluster.has_members(&group))
        });
        asked.await
    }

    fn tail(
        &self,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn Tail>, LogError> {
        Ok(Box::new(SimTail::open(
            &self.cluster,
            topic,
            from,
            attention,
        )))
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(SimMember::new(
            &self.cluster,
            &self.process,
            membership,
        )))
    }
}
