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
use tansu_sans_io::ErrorCode;
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

/// Members of one group, and ids given out that have not joined yet. More are refused.
const MOST_MEMBERS: usize = 1_000;
/// Session and rebalance timeouts are taken within these bounds.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1_800);

/// A request to join.
#[derive(Clone, Debug)]
pub(super) struct Join {
    /// What the client calls itself: the beginning of its member id.
    pub(super) client: String,
    /// Its id; empty the first time.
    pub(super) member: String,
    /// The name under which a static member (KIP-345) comes back.
    pub(super) instance: Option<String>,
    /// Such as `consumer`.
    pub(super) kind: String,
    /// What it can work with, the best first: the name and what the leader has to know.
    pub(super) protocols: Vec<(String, Bytes)>,
    /// It is put out when it is not heard of for so long.
    pub(super) session: Duration,
    /// How long it may take to join again.
    pub(super) rebalance: Duration,
}

/// What a member is told when a generation begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) generation: i32,
    pub(super) kind: String,
    pub(super) protocol: String,
    pub(super) leader: String,
    pub(super) member: String,
    /// Everybody, with instance and metadata: for the leader alone.
    pub(super) members: Vec<(String, Option<String>, Bytes)>,
}

/// Why a request was refused, and the member id that the answer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) member: String,
}

pub(super) type JoinAnswer = Result<Joined, Refusal>;
pub(super) type SyncAnswer = Result<Bytes, ErrorCode>;

/// All groups. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Membership(Arc<Mutex<HashMap<String, Group>>>);

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
    pub(super) fn join(
        &self,
        group: &str,
        request: Join,
        now: Instant,
    ) -> oneshot::Receiver<JoinAnswer> {
        let (answer, answered) = oneshot::channel();
        self.groups()
            .entry(group.to_owned())
            .or_default()
            .join(request, answer, now);
        answered
    }

    /// Asks what the member gets; the leader says what everybody gets. The answer comes when the leader has said so.
    pub(super) fn sync(
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
            None => drop(answer.send(Err(ErrorCode::UnknownMemberId))),
        }
        answered
    }

    /// Takes note that the member is there.
    pub(super) fn heartbeat(
        &self,
        group: &str,
        member: &str,
        generation: i32,
        now: Instant,
    ) -> ErrorCode {
        let mut groups = self.groups();
        let heard = groups
            .get_mut(group)
            .ok_or(ErrorCode::UnknownMemberId)
            .and_then(|group| group.hear(member, generation, now));
        match heard {
            Ok(Phase::Joining(_)) => ErrorCode::RebalanceInProgress,
            Ok(_) => ErrorCode::None,
            Err(code) => code,
        }
    }

    /// Lets a member go; the others share what it had.
    pub(super) fn leave(&self, group: &str, member: &str, now: Instant) -> ErrorCode {
        let mut groups = self.groups();
        let Some(group) = groups.get_mut(group) else {
            return ErrorCode::UnknownMemberId;
        };
        let was_invited = group.invited.remove(member).is_some();
        let was_member = group.members.remove(member).is_some();
        if was_member {
            group.share_anew(now);
        }
        if was_member || was_invited {
            ErrorCode::None
        } else {
            ErrorCode::UnknownMemberId
        }
    }

    /// Whether the member may commit offsets as one of this generation. A client outside of any group (no member id, generation
    /// below 0) may, as long as the group has no members.
    pub(super) fn may_commit(
        &self,
        group: &str,
        member: &str,
        generation: i32,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let mut groups = self.groups();
        let group = groups
            .get_mut(group)
            .filter(|group| !group.members.is_empty());
        match group {
            None if generation < 0 => Ok(()),
            None => Err(ErrorCode::IllegalGeneration),
            Some(group) => match group.hear(member, generation, now)? {
                Phase::Assigning => Err(ErrorCode::RebalanceInProgress),
                Phase::Joining(_) | Phase::Stable => Ok(()),
            },
        }
    }

    /// Puts out who was not heard of in time, and goes on with those who joined in time. To be called several times a second.
    pub(super) fn tick(&self, now: Instant) {
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
            return refuse(answer, ErrorCode::InconsistentGroupProtocol, request.member);
        }
        let session = request.session.clamp(SHORTEST, LONGEST);
        let id = match (&request.instance, request.member.is_empty()) {
            (None, true) => {
                let id = format!("{}-{}", request.client, Uuid::new_v4());
                if self.members.len() + self.invited.len() >= MOST_MEMBERS {
                    return refuse(answer, ErrorCode::GroupMaxSizeReached, request.member);
                }
                self.invited.insert(id.clone(), now + session);
                return refuse(answer, ErrorCode::MemberIdRequired, id);
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
                    return refuse(answer, ErrorCode::UnknownMemberId, request.member);
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
                    let _ = syncing.send(Err(ErrorCode::RebalanceInProgress));
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
            let _ = answer.send(Err(ErrorCode::UnknownMemberId));
            return;
        };
        match heard {
            Err(code) => drop(answer.send(Err(code))),
            Ok(Phase::Joining(_)) => drop(answer.send(Err(ErrorCode::RebalanceInProgress))),
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
    fn hear(&mut self, id: &str, generation: i32, now: Instant) -> Result<Phase, ErrorCode> {
        let member = self.members.get_mut(id).ok_or(ErrorCode::UnknownMemberId)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SESSION: Duration = Duration::from_secs(6);
    const REBALANCE: Duration = Duration::from_secs(60);

    fn request(member: &str, owned: &'static str) -> Join {
        Join {
            client: "test".to_owned(),
            member: member.to_owned(),
            instance: None,
            kind: "consumer".to_owned(),
            protocols: vec![("sticky".to_owned(), Bytes::from_static(owned.as_bytes()))],
            session: SESSION,
            rebalance: REBALANCE,
        }
    }

    struct Fixture {
        groups: Membership,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                groups: Membership::default(),
                now: Instant::now(),
            }
        }

        /// Lets time pass as the broker does: in small steps.
        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += Duration::from_millis(200);
                self.groups.tick(self.now);
            }
        }

        fn join(&self, member: &str) -> oneshot::Receiver<JoinAnswer> {
            self.groups.join("g", request(member, ""), self.now)
        }

        fn invitation(&self) -> String {
            let refused = self.join("").try_recv().unwrap().unwrap_err();
            assert_eq!(refused.code, ErrorCode::MemberIdRequired);
            refused.member
        }

        fn sync(
            &self,
            member: &Joined,
            assignments: &[(&str, &'static str)],
        ) -> oneshot::Receiver<SyncAnswer> {
            let assignments = assignments
                .iter()
                .map(|(id, what)| ((*id).to_owned(), Bytes::from_static(what.as_bytes())))
                .collect();
            self.groups.sync(
                "g",
                &member.member,
                member.generation,
                assignments,
                self.now,
            )
        }

        fn heartbeat(&self, member: &Joined) -> ErrorCode {
            self.groups
                .heartbeat("g", &member.member, member.generation, self.now)
        }

        /// A group of one that has all.
        fn alone(&self) -> Joined {
            let joined = self.join(&self.invitation()).try_recv().unwrap().unwrap();
            let assigned = self.sync(&joined, &[(&joined.member, "all")]).try_recv();
            assert_eq!(assigned.unwrap().unwrap(), "all");
            joined
        }
    }

    #[test]
    fn a_member_alone_leads_and_gets_what_it_gives_itself() {
        let fixture = Fixture::new();
        let joined = fixture.alone();
        assert_eq!(joined.leader, joined.member);
        assert_eq!(joined.members.len(), 1);
        assert_eq!(fixture.heartbeat(&joined), ErrorCode::None);
    }

    #[test]
    fn a_newcomer_waits_until_the_others_have_joined_again() {
        let fixture = Fixture::new();
        let first = fixture.alone();
        let mut second = fixture.join(&fixture.invitation());
        assert!(second.try_recv().is_err());
        assert_eq!(fixture.heartbeat(&first), ErrorCode::RebalanceInProgress);
        let again = fixture.join(&first.member).try_recv().unwrap().unwrap();
        let second = second.try_recv().unwrap().unwrap();
        assert_eq!(again.generation, first.generation + 1);
        assert_eq!(again.members.len(), 2);
        assert_eq!((&second.leader, second.members.len()), (&first.member, 0));
        let mut waiting = fixture.sync(&second, &[]);
        assert!(waiting.try_recv().is_err());
        let shares = [
            (again.member.as_str(), "some"),
            (second.member.as_str(), "the rest"),
        ];
        assert_eq!(
            fixture.sync(&again, &shares).try_recv().unwrap(),
            Ok("some".into())
        );
        assert_eq!(waiting.try_recv().unwrap(), Ok("the rest".into()));
        assert_eq!(fixture.heartbeat(&second), ErrorCode::None);
    }

    #[test]
    fn a_member_that_died_is_put_out_and_the_living_are_told() {
        let mut fixture = Fixture::new();
        let dead = fixture.alone();
        fixture.pass(Duration::from_secs(3));
        let mut heir = fixture.join(&fixture.invitation());
        fixture.pass(Duration::from_secs(2));
        assert!(heir.try_recv().is_err());
        fixture.pass(Duration::from_secs(2));
        let heir = heir.try_recv().unwrap().unwrap();
        assert_eq!(heir.leader, heir.member);
        assert_eq!(heir.members.len(), 1);
        assert_eq!(fixture.heartbeat(&dead), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn a_leader_that_dies_before_it_assigned_is_replaced() {
        let mut fixture = Fixture::new();
        let leader = fixture.alone();
        let mut second = fixture.join(&fixture.invitation());
        fixture.join(&leader.member).try_recv().unwrap().unwrap();
        let second = second.try_recv().unwrap().unwrap();
        let mut waiting = fixture.sync(&second, &[]);
        fixture.pass(SESSION + Duration::from_secs(1));
        assert_eq!(
            waiting.try_recv().unwrap(),
            Err(ErrorCode::RebalanceInProgress)
        );
        let again = fixture.join(&second.member).try_recv().unwrap().unwrap();
        assert_eq!(again.leader, second.member);
    }

    #[test]
    fn one_that_does_not_join_again_in_time_is_left_behind() {
        let mut fixture = Fixture::new();
        let slow = fixture.alone();
        let mut second = fixture.join(&fixture.invitation());
        // It sends heartbeats, so it is there, and does not join.
        for _ in 0..61 {
            fixture.pass(Duration::from_secs(1));
            fixture.heartbeat(&slow);
        }
        let second = second.try_recv().unwrap().unwrap();
        assert_eq!(second.members.len(), 1);
        assert_eq!(fixture.heartbeat(&slow), ErrorCode::UnknownMemberId);
    }

    #[test]
    fn one_whose_connection_broke_while_it_waited_does_not_hold_the_others_up() {
        let mut fixture = Fixture::new();
        let first = fixture.alone();
        drop(fixture.join(&fixture.invitation()));
        let mut again = fixture.join(&first.member);
        assert!(again.try_recv().is_err());
        fixture.pass(SESSION + Duration::from_secs(1));
        assert_eq!(again.try_recv().unwrap().unwrap().members.len(), 1);
    }

    #[test]
    fn when_one_leaves_the_others_share_what_it_had() {
        let fixture = Fixture::new();
        let first = fixture.alone();
        let mut second = fixture.join(&fixture.invitation());
        let leader = fixture.join(&first.member).try_recv().unwrap().unwrap();
        let second = second.try_recv().unwrap().unwrap();
        drop(fixture.sync(&leader, &[]));
        assert_eq!(
            fixture.groups.leave("g", &leader.member, fixture.now),
            ErrorCode::None
        );
        assert_eq!(fixture.heartbeat(&second), ErrorCode::RebalanceInProgress);
        let again = fixture.join(&second.member).try_recv().unwrap().unwrap();
        assert_eq!(again.leader, second.member);
    }

    #[test]
    fn only_a_member_of_the_present_generation_may_commit() {
        let fixture = Fixture::new();
        let may = |member: &str, generation| {
            fixture
                .groups
                .may_commit("g", member, generation, fixture.now)
        };
        assert_eq!(may("", -1), Ok(()));
        assert_eq!(may("somebody", 1), Err(ErrorCode::IllegalGeneration));
        let joined = fixture.alone();
        assert_eq!(may(&joined.member, joined.generation), Ok(()));
        assert_eq!(
            may(&joined.member, joined.generation - 1),
            Err(ErrorCode::IllegalGeneration)
        );
        assert_eq!(
            may("somebody", joined.generation),
            Err(ErrorCode::UnknownMemberId)
        );
        assert_eq!(may("", -1), Err(ErrorCode::UnknownMemberId));
    }

    #[test]
    fn a_follower_that_asks_again_is_answered_and_a_changed_one_makes_a_rebalance() {
        let fixture = Fixture::new();
        let first = fixture.alone();
        let mut second = fixture.join(&fixture.invitation());
        let leader = fixture.join(&first.member).try_recv().unwrap().unwrap();
        let second = second.try_recv().unwrap().unwrap();
        drop(fixture.sync(&leader, &[]));
        let again = fixture.join(&second.member).try_recv().unwrap().unwrap();
        assert_eq!(again, second);
        let changed = request(&second.member, "owns something");
        let mut changed = fixture.groups.join("g", changed, fixture.now);
        assert!(changed.try_recv().is_err());
        assert_eq!(fixture.heartbeat(&leader), ErrorCode::RebalanceInProgress);
    }

    #[test]
    fn who_has_nothing_in_common_with_the_others_is_refused() {
        let fixture = Fixture::new();
        fixture.alone();
        let mut other = request(&fixture.invitation(), "");
        other.protocols[0].0 = "another".to_owned();
        let refused = fixture.groups.join("g", other, fixture.now).try_recv();
        assert_eq!(
            refused.unwrap().unwrap_err().code,
            ErrorCode::InconsistentGroupProtocol
        );
    }

    #[test]
    fn a_static_member_takes_the_place_it_had() {
        let fixture = Fixture::new();
        let join = || {
            let mut request = request("", "");
            request.instance = Some("one".to_owned());
            let mut joined = fixture.groups.join("g", request, fixture.now);
            joined.try_recv().unwrap().unwrap()
        };
        let before = join();
        let after = join();
        assert_ne!(before.member, after.member);
        assert_eq!(after.members.len(), 1);
    }

    #[test]
    fn a_group_that_nobody_is_in_is_forgotten() {
        let mut fixture = Fixture::new();
        fixture.alone();
        fixture.invitation();
        fixture.pass(SESSION + Duration::from_secs(1));
        assert!(fixture.groups.groups().is_empty());
    }
}
