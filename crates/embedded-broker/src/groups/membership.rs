//! Who is in a consumer group, who leads it, and which generation it is: the classic rebalance protocol of Kafka
//! (`JoinGroup`, `SyncGroup`, `Heartbeat`, `LeaveGroup`; KIP-62, and KIP-394 for member ids that are given out first).
//!
//! A rebalance waits until every member has joined again, for at most the longest of their rebalance timeouts. A member that is not
//! heard of for its session timeout is put out, and the others hear of it at their next heartbeat. All of it is in memory:
//! after a restart nobody is known, and every member joins anew.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

/// Members of one group, and ids given out that have not joined yet. More are refused.
const MOST_MEMBERS: usize = 1_000;
/// Groups with members. More are refused.
const MOST_GROUPS: usize = 1_000;
/// Session and rebalance timeouts are taken within these bounds.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1_800);

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

/// A group as an operator sees it.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// As Kafka names it.
    pub(crate) state: &'static str,
    pub(crate) kind: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member as an operator sees it.
#[derive(Clone, Debug)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

/// All groups. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership(Arc<Mutex<HashMap<String, Group>>>);

#[derive(Debug)]
struct Group {
    generation: i32,
    phase: Phase,
    kind: String,
    protocol: String,
    leader: String,
    members: BTreeMap<String, Member>,
    /// Ids that were given out and have not joined yet, and until when they may.
    invited: HashMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Members are joining, at most until then.
    Joining(Instant),
    /// The leader has to say who gets what.
    Assigning,
    /// Everybody has been told.
    Stable,
}

#[derive(Debug)]
struct Member {
    client: String,
    instance: Option<String>,
    protocols: Vec<(String, Bytes)>,
    session: Duration,
    rebalance: Duration,
    heard: Instant,
    assignment: Bytes,
    joining: Option<oneshot::Sender<JoinAnswer>>,
    syncing: Option<oneshot::Sender<SyncAnswer>>,
}

impl Member {
    fn is_joining(&self) -> bool {
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
    fn is_lost(&self, now: Instant) -> bool {
        !self.is_joining() && !self.is_syncing() && now > self.heard + self.session
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        let of = |(name, metadata): &(String, Bytes)| (name == protocol).then(|| metadata.clone());
        self.protocols.iter().find_map(of).unwrap_or_default()
    }

    fn takes(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}

impl Membership {
    fn groups(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a group. The answer comes when everybody has joined; an answer that fails to come is a rebalance in progress.
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
        answered
    }

    /// Asks what the member gets; the leader says what everybody gets. The answer comes when the leader has said so.
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
        answered
    }

    /// Takes note that the member is there.
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

    /// Lets a member go; the others share what it had.
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
        if was_member || was_invited {
            Ok(())
        } else {
            Err(ResponseError::UnknownMemberId)
        }
    }

    /// Whether the member may commit offsets as one of this generation. A client outside of any group (no member id, generation
    /// below 0) may, as long as the group has no members.
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

    /// The groups that have members, with their state.
    pub(crate) fn list(&self) -> Vec<Described> {
        let groups = self.groups();
        let listed = groups.iter().map(|(name, group)| group.describe(name));
        listed.collect()
    }

    /// A group that has members.
    pub(crate) fn describe(&self, group: &str) -> Option<Described> {
        let groups = self.groups();
        groups.get(group).map(|found| found.describe(group))
    }

    /// Puts out who was not heard of in time, and goes on with those who joined in time. To be called several times a second.
    pub(crate) fn tick(&self, now: Instant) {
        self.groups().retain(|_, group| {
            group.tick(now);
            !group.members.is_empty() || !group.invited.is_empty()
        });
    }
}

impl Default for Group {
    fn default() -> Self {
        Self {
            generation: 0,
            phase: Phase::Stable,
            kind: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            invited: HashMap::new(),
        }
    }
}

impl Group {
    fn describe(&self, name: &str) -> Described {
        let state = match self.phase {
            _ if self.members.is_empty() => "Empty",
            Phase::Joining(_) => "PreparingRebalance",
            Phase::Assigning => "CompletingRebalance",
            Phase::Stable => "Stable",
        };
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            metadata: member.metadata(&self.protocol),
            assignment: member.assignment.clone(),
        });
        Described {
            name: name.to_owned(),
            state,
            kind: self.kind.clone(),
            protocol: self.protocol.clone(),
            members: members.collect(),
        }
    }

    fn join(&mut self, request: Join, answer: oneshot::Sender<JoinAnswer>, now: Instant) {
        let refuse = |answer: oneshot::Sender<JoinAnswer>, code, member: String| {
            let _ = answer.send(Err(Refusal { code, member }));
        };
        let others = || {
            self.members
                .iter()
                .filter(|(id, _)| **id != request.member)
                .map(|(_, member)| member)
        };
        let fits = others().next().is_none()
            || (self.kind == request.kind
                && request
                    .protocols
                    .iter()
                    .any(|(name, _)| others().all(|other| other.takes(name))));
        if !fits || request.protocols.is_empty() {
            return refuse(
                answer,
                ResponseError::InconsistentGroupProtocol,
                request.member,
            );
        }
        let session = request.session.clamp(SHORTEST, LONGEST);
        let id = match (&request.instance, request.member.is_empty()) {
            (None, true) => {
                let id = format!("{}-{}", request.client, Uuid::new_v4());
                if self.members.len() + self.invited.len() >= MOST_MEMBERS {
                    return refuse(answer, ResponseError::GroupMaxSizeReached, request.member);
                }
                self.invited.insert(id.clone(), now + session);
                return refuse(answer, ResponseError::MemberIdRequired, id);
            }
            (Some(instance), true) => {
                // It comes back: whoever had its name has ended.
                self.members
                    .retain(|_, member| member.instance.as_ref() != Some(instance));
                format!("{instance}-{}", Uuid::new_v4())
            }
            (_, false) => {
                let is_known = self.invited.remove(&request.member).is_some()
                    || self.members.contains_key(&request.member);
                if !is_known {
                    return refuse(answer, ResponseError::UnknownMemberId, request.member);
                }
                request.member
            }
        };
        if let Some(member) = self.members.get_mut(&id)
            && member.protocols == request.protocols
            && match self.phase {
                // The answer was lost, or the client asks again without need.
                Phase::Assigning => true,
                // A leader that joins again wants a new share-out.
                Phase::Stable => id != self.leader,
                Phase::Joining(_) => false,
            }
        {
            member.heard = now;
            let _ = answer.send(Ok(self.joined(&id)));
            return;
        }
        self.kind = request.kind;
        let member = self.members.entry(id).or_insert_with(|| Member {
            client: request.client,
            instance: request.instance,
            protocols: Vec::new(),
            session,
            rebalance: session,
            heard: now,
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
        });
        member.protocols = request.protocols;
        member.session = session;
        member.rebalance = request.rebalance.clamp(SHORTEST, LONGEST);
        member.heard = now;
        member.joining = Some(answer);
        self.share_anew(now);
    }

    /// Begins a rebalance unless one is under way, and ends it if everybody has joined.
    fn share_anew(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Joining(_)) {
            for member in self.members.values_mut() {
                if let Some(syncing) = member.syncing.take() {
                    // It waited for us: its time begins now.
                    member.heard = now;
                    let _ = syncing.send(Err(ResponseError::RebalanceInProgress));
                }
            }
            let patience = self.members.values().map(|member| member.rebalance).max();
            self.phase = Phase::Joining(now + patience.unwrap_or_default());
        }
        if self.members.values().all(Member::is_joining) {
            self.begin_generation(now);
        }
    }

    /// Goes on with those who have joined.
    fn begin_generation(&mut self, now: Instant) {
        self.members.retain(|_, member| member.is_joining());
        self.phase = Phase::Stable;
        let Some(first) = self.members.keys().next() else {
            return;
        };
        if !self.members.contains_key(&self.leader) {
            self.leader.clone_from(first);
        }
        self.generation += 1;
        self.phase = Phase::Assigning;
        // What the leader likes best of what everybody takes; each was let in only with something in common.
        let common = |protocol: &&(String, Bytes)| {
            let takes = |member: &Member| member.takes(&protocol.0);
            self.members.values().all(takes)
        };
        self.protocol = self.members[&self.leader]
            .protocols
            .iter()
            .find(common)
            .map(|(name, _)| name.clone())
            .unwrap_or_default();
        let answers: Vec<Joined> = self.members.keys().map(|id| self.joined(id)).collect();
        for (member, joined) in self.members.values_mut().zip(answers) {
            member.heard = now;
            member.assignment = Bytes::new();
            if let Some(joining) = member.joining.take() {
                // One whose connection broke meanwhile is not heard of again, and put out in time.
                let _ = joining.send(Ok(joined));
            }
        }
    }

    fn joined(&self, id: &str) -> Joined {
        let members = if id == self.leader {
            self.members
                .iter()
                .map(|(id, member)| {
                    let metadata = member.metadata(&self.protocol);
                    (id.clone(), member.instance.clone(), metadata)
                })
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            kind: self.kind.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: id.to_owned(),
            members,
        }
    }

    fn sync(
        &mut self,
        id: &str,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
        answer: oneshot::Sender<SyncAnswer>,
        now: Instant,
    ) {
        let heard = self.hear(id, generation, now);
        let is_leader = id == self.leader;
        let Some(member) = self.members.get_mut(id) else {
            let _ = answer.send(Err(ResponseError::UnknownMemberId));
            return;
        };
        match heard {
            Err(code) => drop(answer.send(Err(code))),
            Ok(Phase::Joining(_)) => drop(answer.send(Err(ResponseError::RebalanceInProgress))),
            Ok(Phase::Stable) => drop(answer.send(Ok(member.assignment.clone()))),
            Ok(Phase::Assigning) => {
                member.syncing = Some(answer);
                if !is_leader {
                    return;
                }
                self.phase = Phase::Stable;
                for (id, assignment) in assignments {
                    if let Some(member) = self.members.get_mut(&id) {
                        member.assignment = assignment;
                    }
                }
                for member in self.members.values_mut() {
                    if let Some(syncing) = member.syncing.take() {
                        member.heard = now;
                        let _ = syncing.send(Ok(member.assignment.clone()));
                    }
                }
            }
        }
    }

    /// Takes note of a sign of life of a member of this generation.
    fn hear(&mut self, id: &str, generation: i32, now: Instant) -> Result<Phase, ResponseError> {
        let member = self
            .members
            .get_mut(id)
            .ok_or(ResponseError::UnknownMemberId)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        member.heard = now;
        Ok(self.phase)
    }

    fn tick(&mut self, now: Instant) {
        self.invited.retain(|_, until| now < *until);
        let before = self.members.len();
        self.members.retain(|_, member| !member.is_lost(now));
        if self.members.len() < before {
            self.share_anew(now);
        }
        if let Phase::Joining(until) = self.phase
            && now >= until
        {
            self.begin_generation(now);
        }
    }
}

#[cfg(test)]
mod tests;
