//! A member of a consumer group.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tandem_event_path::log::{Arrival, LogError, Member, Membership, Offsets};
use tandem_model::message::Message;

use super::{Cluster, feed::Feed, group::Shared, patience_of};
use crate::{chance::draw, process::Process};

/// Reads as a member of a group.
pub(super) struct SimMember {
    cluster: Cluster,
    shared: Arc<Shared>,
    on_lag: Arc<dyn Fn(i64) + Send + Sync>,
    commits: Arc<AtomicBool>,
}

impl SimMember {
    pub(super) fn new(cluster: &Cluster, process: &Process, membership: Membership) -> Self {
        let feed = Feed::new(cluster, membership.topic, patience_of(membership.attention));
        feed.state().is_member = true;
        Self {
            cluster: cluster.clone(),
            shared: Arc::new(Shared {
                number: cluster.world().number(),
                group: membership.group,
                topic: membership.topic,
                process: process.clone(),
                feed,
                reassigned: AtomicBool::new(true),
                held: std::sync::Mutex::default(),
            }),
            on_lag: membership.on_lag,
            commits: Arc::default(),
        }
    }

    /// Commits the noted offsets after a while, and retries while the brokers do not accept them.
    fn commit_later(&self) {
        if self.commits.swap(true, Ordering::Relaxed) {
            return;
        }
        commit_in_a_while(Committing {
            cluster: self.cluster.clone(),
            shared: Arc::clone(&self.shared),
            on_lag: Arc::clone(&self.on_lag),
            commits: Arc::clone(&self.commits),
        });
    }
}

struct Committing {
    cluster: Cluster,
    shared: Arc<Shared>,
    on_lag: Arc<dyn Fn(i64) + Send + Sync>,
    commits: Arc<AtomicBool>,
}

fn commit_in_a_while(committing: Committing) {
    let delay = draw(|chance| chance.between(50, 600));
    let world = committing.cluster.world().clone();
    world.later(Duration::from_millis(delay), move || {
        let Committing {
            cluster, shared, ..
        } = &committing;
        if shared.process.is_dead() {
            return;
        }
        if cluster.is_away() {
            return commit_in_a_while(committing);
        }
        committing.commits.store(false, Ordering::Relaxed);
        cluster.commit_noted(shared);
        (committing.on_lag)(cluster.lag_of(shared));
    });
}

#[async_trait]
impl Member for SimMember {
    fn subscribe(&self) -> Result<(), LogError> {
        let (cluster, shared) = (self.cluster.clone(), Arc::clone(&self.shared));
        let delay = draw(|chance| chance.between(20, 400));
        let world = self.cluster.world();
        world.later(Duration::from_millis(delay), move || {
            cluster.join_group(&shared);
        });
        Ok(())
    }

    async fn next(&self) -> Result<Message, LogError> {
        loop {
            if let Some(message) = self.next_ready() {
                return Ok(message);
            }
            self.shared.feed.fetch();
            self.shared.feed.0.came.notified().await;
        }
    }

    fn next_ready(&self) -> Option<Message> {
        loop {
            if let Arrival::Record(message) = self.shared.feed.take()? {
                return Some(message);
            }
        }
    }

    fn was_reassigned(&self) -> bool {
        self.shared.reassigned.swap(false, Ordering::Relaxed)
    }

    fn store(&self, next: &Offsets) -> Result<(), LogError> {
        let mut held = self.shared.held();
        let mut lost = Vec::new();
        for (partition, offset) in next {
            if held.partitions.contains(partition) {
                held.noted.insert(*partition, *offset);
            } else {
                lost.push(*partition);
            }
        }
        drop(held);
        self.commit_later();
        if lost.is_empty() {
            return Ok(());
        }
        Err(LogError::Unavailable(format!(
            "{lost:?} are another member's"
        )))
    }

    fn commit(&self) -> Result<(), LogError> {
        if self.cluster.commit_noted(&self.shared) {
            return Ok(());
        }
        Err(super::away())
    }

    fn pause(&self) {
        let partitions = self.shared.held().partitions.clone();
        self.shared.feed.state().paused.extend(partitions);
    }

    fn resume(&self) {
        self.shared.feed.state().paused.clear();
        self.shared.feed.0.came.notify_one();
    }

    async fn leave(self: Box<Self>, _: Duration) -> bool {
        let (cluster, shared) = (self.cluster.clone(), Arc::clone(&self.shared));
        let delay = draw(|chance| chance.between(2, 60));
        let world = self.cluster.world();
        let left = world.effect(Duration::from_millis(delay), move || {
            let is_committed = cluster.commit_noted(&shared);
            cluster.leave_group(&shared);
            is_committed
        });
        left.await
    }
}
