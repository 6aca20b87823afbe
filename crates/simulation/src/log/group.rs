//! Consumer groups: the partitions of each member, and the committed offsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_event_path::log::Offsets;

use super::{Cluster, State, feed::Feed};
use crate::{chance::draw, faults::Fault, process::Process};

/// The session timeout: how long a group keeps a member that sends no heartbeat.
const SESSION: Duration = Duration::from_secs(6);

/// A consumer group.
#[derive(Default)]
pub(super) struct Group {
    topic: &'static str,
    members: BTreeMap<u64, Joined>,
    /// For each partition, the next offset to read.
    committed: Offsets,
}

impl Group {
    /// Removes the committed offsets of a topic that is deleted.
    pub(super) fn forget(&mut self, topic: &str) {
        if self.topic == topic {
            self.committed.clear();
        }
    }
}

/// What a group knows of one member.
struct Joined {
    member: Arc<Shared>,
    assigned: BTreeSet<i32>,
}

/// The state that a member and its group share.
pub(super) struct Shared {
    pub(super) number: u64,
    pub(super) group: String,
    pub(super) topic: &'static str,
    pub(super) process: Process,
    pub(super) feed: Feed,
    pub(super) reassigned: AtomicBool,
    pub(super) held: Mutex<Held>,
}

/// The partitions that a member believes to hold. It learns late of those that it has lost.
#[derive(Default)]
pub(super) struct Held {
    pub(super) partitions: BTreeSet<i32>,
    pub(super) noted: Offsets,
}

impl Shared {
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Adds a member to its group.
    pub(super) fn join_group(&self, member: &Arc<Shared>) {
        if member.process.is_dead() {
            return;
        }
        let mut state = self.state();
        let group = state.groups.entry(member.group.clone()).or_default();
        group.topic = member.topic;
        let joined = Joined {
            member: Arc::clone(member),
            assigned: BTreeSet::new(),
        };
        group.members.insert(member.number, joined);
        drop(state);
        self.rebalance(&member.group);
    }

    /// Removes a member from its group.
    pub(super) fn leave_group(&self, member: &Shared) {
        let mut state = self.state();
        if let Some(group) = state.groups.get_mut(&member.group) {
            group.members.remove(&member.number);
        }
        drop(state);
        self.rebalance(&member.group);
    }

    /// Removes the members of a killed process from their groups, when their sessions time out.
    pub fn miss(&self, process: &Process) {
        let (cluster, process) = (self.clone(), process.clone());
        self.world().later(SESSION, move || {
            let state = cluster.state();
            let members = state.groups.values().flat_map(|it| it.members.values());
            let gone: Vec<Arc<Shared>> = members
                .filter(|joined| joined.member.process.name == process.name)
                .filter(|joined| joined.member.process.is_dead())
                .map(|joined| Arc::clone(&joined.member))
                .collect();
            drop(state);
            for member in gone {
                cluster.leave_group(&member);
            }
        });
    }

    /// Ends the session of a living member. The member learns of it late and joins again.
    pub fn expire_a_member(&self) {
        let state = self.state();
        let members: Vec<Arc<Shared>> = state
            .groups
            .values()
            .flat_map(|group| group.members.values())
            .map(|joined| Arc::clone(&joined.member))
            .collect();
        drop(state);
        let Some(member) = draw(|chance| chance.pick(&members).cloned()) else {
            return;
        };
        self.world()
            .note(|| format!("group {} expires {}", member.group, member.process.name));
        self.leave_group(&member);
        let (cluster, delay) = (self.clone(), draw(|chance| chance.between(500, 9_000)));
        self.world().later(Duration::from_millis(delay), move || {
            let lost = std::mem::take(&mut *member.held()).partitions;
            member.feed.remove(&lost);
            member.reassigned.store(true, Ordering::Relaxed);
            cluster.join_group(&member);
        });
    }

    /// Rebalances all groups of a topic.
    pub(super) fn rebalance_all(&self, topic: &str) {
        let state = self.state();
        let of_topic = |group: &&String| state.groups[*group].topic == topic;
        let groups: Vec<String> = state.groups.keys().filter(of_topic).cloned().collect();
        drop(state);
        for group in groups {
            self.rebalance(&group);
        }
    }

    /// Assigns the partitions of a group again. Members keep their partitions as far as possible.
    fn rebalance(&self, name: &str) {
        let mut state = self.state();
        let State { topics, groups, .. } = &mut *state;
        let Some(group) = groups.get_mut(name) else {
            return;
        };
        let topic = topics.get(group.topic);
        let count = topic.map_or(0, |topic| topic.partitions.len());
        let wanted = assignment(group, count);
        let mut moves = Vec::new();
        for (number, wanted) in wanted {
            let Some(joined) = group.members.get_mut(&number) else {
                continue;
            };
            let lost: BTreeSet<i32> = joined.assigned.difference(&wanted).copied().collect();
            let won = wanted.difference(&joined.assigned).copied();
            let begin = |partition: &i32| {
                let found =
                    topic.and_then(|it| it.partitions.get(usize::try_from(*partition).ok()?));
                let at_the_end = self.has(Fault::BeginsAtTheEnd);
                found
                    .filter(|_| at_the_end)
                    .map_or(0, super::topic::Partition::high)
            };
            let start = |partition: &i32| {
                let low = topic
                    .and_then(|it| it.partitions.get(usize::try_from(*partition).ok()?))
                    .map_or(0, super::topic::Partition::low);
                group
                    .committed
                    .get(partition)
                    .copied()
                    .unwrap_or(low.max(begin(partition)))
            };
            let won: Offsets = won
                .map(|partition| (partition, start(&partition)))
                .collect();
            joined.assigned = wanted;
            moves.push((Arc::clone(&joined.member), lost, won));
        }
        drop(state);
        for (member, lost, won) in moves {
            if lost.is_empty() && won.is_empty() {
                continue;
            }
            self.world().note(|| {
                let name = &member.process.name;
                format!("group {} {name} loses {lost:?} gets {won:?}", member.group)
            });
            let late = draw(|chance| chance.below(1_500));
            let cluster = self.clone();
            self.world().later(Duration::from_millis(late), move || {
                cluster.tell(&member, &lost, won);
            });
        }
    }

    /// Informs a member of the partitions that it has lost and won.
    fn tell(&self, member: &Arc<Shared>, lost: &BTreeSet<i32>, won: Offsets) {
        // The partitions may have been assigned differently in the meantime.
        let (mut lost, mut won) = (lost.clone(), won);
        {
            let state = self.state();
            let joined = state
                .groups
                .get(&member.group)
                .and_then(|group| group.members.get(&member.number));
            let is_mine =
                |partition: &i32| joined.is_some_and(|it| it.assigned.contains(partition));
            lost.retain(|partition| !is_mine(partition));
            won.retain(|partition, _| is_mine(partition));
        }
        let mut held = member.held();
        held.partitions.retain(|it| !lost.contains(it));
        held.noted.retain(|it, _| !lost.contains(it));
        won.retain(|partition, _| held.partitions.insert(*partition));
        drop(held);
        member.feed.remove(&lost);
        member.feed.add(&won);
        member.reassigned.store(true, Ordering::Relaxed);
    }

    /// Commits the offsets that a member has noted, for the partitions that it still owns.
    pub(super) fn commit_noted(&self, member: &Shared) -> bool {
        if self.is_away() {
            return false;
        }
        let noted = member.held().noted.clone();
        let mut state = self.state();
        let Some(group) = state.groups.get_mut(&member.group) else {
            return false;
        };
        let Some(joined) = group.members.get(&member.number) else {
            return false;
        };
        for (partition, next) in noted {
            if joined.assigned.contains(&partition)
                && group.committed.get(&partition) != Some(&next)
            {
                group.committed.insert(partition, next);
                self.world()
                    .note(|| format!("group {} commits {partition}@{next}", member.group));
            }
        }
        true
    }

    /// The number of records in a member's partitions after the noted or committed offsets.
    pub(super) fn lag_of(&self, member: &Shared) -> i64 {
        let held = member.held();
        let state = self.state();
        let committed = state.groups.get(&member.group).map(|it| &it.committed);
        let lags = held.partitions.iter().filter_map(|partition| {
            let topic = state.topics.get(member.topic)?;
            let found = topic.partitions.get(usize::try_from(*partition).ok()?)?;
            let noted = held.noted.get(partition);
            let done = noted.or_else(|| committed?.get(partition)).copied();
            Some((found.high() - done.unwrap_or(found.low())).max(0))
        });
        lags.sum()
    }

    /// Whether a group has members.
    pub(super) fn has_members(&self, group: &str) -> bool {
        let state = self.state();
        state
            .groups
            .get(group)
            .is_some_and(|group| !group.members.is_empty())
    }

    /// Whether a feed belongs to a member of a group.
    pub(super) fn is_member(&self, feed: &Feed) -> bool {
        feed.state().is_member
    }
}

/// The new assignment. Members with the fewest partitions get more, and nobody loses more than necessary.
fn assignment(group: &Group, count: usize) -> BTreeMap<u64, BTreeSet<i32>> {
    let mut wanted: BTreeMap<u64, BTreeSet<i32>> = BTreeMap::new();
    let share = count.div_ceil(group.members.len().max(1));
    let mut free: BTreeSet<i32> = (0..i32::try_from(count).unwrap_or_default()).collect();
    for (number, joined) in &group.members {
        let kept: BTreeSet<i32> = joined.assigned.iter().copied().take(share).collect();
        free.retain(|partition| !kept.contains(partition));
        wanted.insert(*number, kept);
    }
    for partition in free {
        if let Some(least) = wanted.values_mut().min_by_key(|kept| kept.len()) {
            least.insert(partition);
        }
    }
    wanted
}
