//! The members of consumer groups, their leaders and generations: the classic rebalance protocol of Kafka (`JoinGroup`,
//! `SyncGroup`, `Heartbeat`, `LeaveGroup`; KIP-62, and KIP-394 for member ids that are assigned before the join).
//!
//! A rebalance waits until every member has joined again, at most for the longest of their rebalance timeouts. A member
//! that sends nothing for its session timeout is removed, and the others learn of it at their next heartbeat. All of
//! this is in memory. After a restart no member is known, and every member joins again.

mod described;
mod group;
mod member;
mod rebalance_protocol;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

pub(crate) use described::Described;
use group::{Group, Phase};
pub(crate) use rebalance_protocol::{Join, Joined, Refusal};
use rebalance_protocol::{JoinAnswer, SyncAnswer};

/// Most groups with members. Further ones are refused.
const MOST_GROUPS: usize = 1_000;
/// The shortest interval between two checks of the groups. It is also the interval while a member waits for an answer.
const TICK: Duration = Duration::from_millis(250);

/// All groups. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    groups: Mutex<HashMap<String, Group>>,
    /// Notified when a timeout may expire sooner than the last check expected.
    sooner: Notify,
}

impl Membership {
    fn groups(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a group. The answer comes when all members have joined. If the answer is dropped, a rebalance is in
    /// progress.
    pub(crate) fn join(
        &self,
        group: &str,
        request: Join,
        now: Instant,
    ) -> oneshot::Receiver<JoinAnswer> {
        let (answer, answered) = oneshot::channel();
        let mut groups = self.groups();
        if groups.len() >= MOST_GROUPS && !groups.contains_key(group) {
            let _ = answer.send(Err(Refusal {
                code: ResponseError::CoordinatorNotAvailable,
                member: request.member,
            }));
            return answered;
        }
        groups
            .entry(group.to_owned())
            .or_default()
            .join(request, answer, now);
        drop(groups);
        self.0.sooner.notify_one();
        answered
    }

    /// Requests the member's assignment; the leader provides all assignments. The answer comes when the leader has done
    /// so.
    pub(crate) fn sync(
        &self,
        group: &str,
        member: &str,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) -> oneshot::Receiver<SyncAnswer> {
        let (answer, answered) = oneshot::channel();
        match self.groups().get_mut(group) {
            Some(group) => group.sync(member, generation, assignments, answer, now),
            None => drop(answer.send(Err(ResponseError::UnknownMemberId))),
        }
        self.0.sooner.notify_one();
        answered
    }

    /// Records that the member is alive.
    pub(crate) fn heartbeat(
        &self,
        group: &str,
        member: &str,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let mut groups = self.groups();
        let heard = groups
            .get_mut(group)
            .ok_or(ResponseError::UnknownMemberId)
            .and_then(|group| group.hear(member, generation, now));
        match heard? {
            Phase::Joining(_) => Err(ResponseError::RebalanceInProgress),
            Phase::Assigning | Phase::Stable => Ok(()),
        }
    }

    /// Removes a member. The others share its partitions.
    pub(crate) fn leave(
        &self,
        group: &str,
        member: &str,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let mut groups = self.groups();
        let Some(group) = groups.get_mut(group) else {
            return Err(ResponseError::UnknownMemberId);
        };
        let was_invited = group.invited.remove(member).is_some();
        let was_member = group.members.remove(member).is_some();
        if was_member {
            group.share_anew(now);
        }
        drop(groups);
        self.0.sooner.notify_one();
        if was_member || was_invited {
            Ok(())
        } else {
            Err(ResponseError::UnknownMemberId)
        }
    }

    /// Whether the member may commit offsets in this generation. A client outside of any group (no member id,
    /// generation below 0) may do so as long as the group has no members.
    pub(crate) fn may_commit(
        &self,
        group: &str,
        member: &str,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let mut groups = self.groups();
        let group = groups
            .get_mut(group)
            .filter(|group| !group.members.is_empty());
        match group {
            None if generation < 0 => Ok(()),
            None => Err(ResponseError::IllegalGeneration),
            Some(group) => match group.hear(member, generation, now)? {
                Phase::Assigning => Err(ResponseError::RebalanceInProgress),
                Phase::Joining(_) | Phase::Stable => Ok(()),
            },
        }
    }

    /// The groups with members, and their states.
    pub(crate) fn list(&self) -> Vec<Described> {
        let groups = self.groups();
        let listed = groups.iter().map(|(name, group)| group.describe(name));
        listed.collect()
    }

    /// A group with members.
    pub(crate) fn describe(&self, group: &str) -> Option<Described> {
        let groups = self.groups();
        groups.get(group).map(|found| found.describe(group))
    }

    /// Checks the groups forever, whenever a timeout may have expired. While all members send heartbeats, this is about
    /// once in the shortest session timeout.
    #[expect(clippy::disallowed_methods, reason = "the broker runs on real time")]
    pub(crate) async fn watch(&self) {
        loop {
            let looked = Instant::now();
            self.tick(looked);
            loop {
                let due = self.due(looked);
                tokio::select! {
                    () = self.0.sooner.notified() => {}
                    () = tokio::time::sleep_until(due.unwrap_or(looked)), if due.is_some() => break,
                }
            }
        }
    }

    /// When the groups must be checked again, if they were checked at this time; `None` while no group has members.
    fn due(&self, looked: Instant) -> Option<Instant> {
        let soon = looked + TICK;
        let groups = self.groups();
        let dues = groups.values().filter_map(|group| group.due(soon));
        dues.min().map(|due| due.max(soon))
    }

    /// Removes members whose session expired, and completes rebalances whose time is over.
    pub(crate) fn tick(&self, now: Instant) {
        self.groups().retain(|_, group| {
            group.tick(now);
            !group.members.is_empty() || !group.invited.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
