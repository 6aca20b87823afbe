//! One group: its generation, its members, and the rebalance when members join or leave.
#![expect(clippy::disallowed_methods, reason = "an id that decides nothing")]

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use super::{
    described::{Described, DescribedMember},
    member::Member,
    rebalance_protocol::{Join, JoinAnswer, Joined, Refusal, SyncAnswer},
};

/// Most members of one group, including assigned ids that have not joined yet. Further ones are refused.
const MOST_MEMBERS: usize = 1_000;
/// Most protocols of one member. Each is compared with those of all other members. Clients have one or two.
const MOST_PROTOCOLS: usize = 64;
/// Bounds of session and rebalance timeouts.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1_800);

#[derive(Debug)]
pub(super) struct Group {
    generation: i32,
    phase: Phase,
    kind: String,
    protocol: String,
    leader: String,
    pub(super) members: BTreeMap<String, Member>,
    /// Ids that were assigned but have not joined yet, each with the time when it expires.
    pub(super) invited: HashMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Members are joining, at most until this time.
    Joining(Instant),
    /// The leader must provide the assignments.
    Assigning,
    /// All members have their assignments.
    Stable,
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
    pub(super) fn describe(&self, name: &str) -> Described {
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

    pub(super) fn join(
        &mut self,
        request: Join,
        answer: oneshot::Sender<JoinAnswer>,
        now: Instant,
    ) {
        let refuse = |answer: oneshot::Sender<JoinAnswer>, code, member: String| {
            let _ = answer.send(Err(Refusal { code, member }));
        };
        if request.protocols.len() > MOST_PROTOCOLS {
            return refuse(
                answer,
                ResponseError::InconsistentGroupProtocol,
                request.member,
            );
        }
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
                // A static member comes back, so the earlier member with this name has ended.
                self.members
                    .retain(|_, member| member.instance.as_ref() != Some(instance));
                if self.members.len() + self.invited.len() >= MOST_MEMBERS {
                    return refuse(answer, ResponseError::GroupMaxSizeReached, request.member);
                }
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
                // The answer was lost, or the client repeats the request without need.
                Phase::Assigning => true,
                // A leader that joins again requests a new rebalance.
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

    /// Starts a rebalance unless one is in progress, and completes it if all members have joined.
    pub(super) fn share_anew(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Joining(_)) {
            for member in self.members.values_mut() {
                if let Some(syncing) = member.syncing.take() {
                    // It was waiting for the broker, so its session starts now.
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

    /// Starts a generation with the members that have joined.
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
        // The leader's preferred protocol among those that all members support. A member may join only if there is a
        // common one.
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
                // If a member's connection broke meanwhile, its session will expire.
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

    pub(super) fn sync(
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

    /// Records that a member of this generation is alive.
    pub(super) fn hear(
        &mut self,
        id: &str,
        generation: i32,
        now: Instant,
    ) -> Result<Phase, ResponseError> {
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

    /// When something may expire: an assigned id, a member's session, or the time to join. `soon` is for events that
    /// cause no notification: a waiting member has disconnected, or the group has become empty.
    pub(super) fn due(&self, soon: Instant) -> Option<Instant> {
        if self.members.is_empty() && self.invited.is_empty() {
            return Some(soon);
        }
        let joining = match self.phase {
            Phase::Joining(until) => Some(until),
            Phase::Assigning | Phase::Stable => None,
        };
        let members = self.members.values().map(|member| member.due(soon));
        let invited = self.invited.values().copied();
        members.chain(invited).chain(joining).min()
    }

    pub(super) fn tick(&mut self, now: Instant) {
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
