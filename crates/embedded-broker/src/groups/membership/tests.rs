//! The rules of membership, with a clock that the test controls.
#![allow(clippy::unwrap_used)]
use std::time::Duration;

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

    /// Advances the time in small steps, as the broker sees it.
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
        assert_eq!(refused.code, ResponseError::MemberIdRequired);
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

    fn heartbeat(&self, member: &Joined) -> Result<(), ResponseError> {
        self.groups
            .heartbeat("g", &member.member, member.generation, self.now)
    }

    /// A group with one member, which has everything assigned.
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
    assert_eq!(fixture.heartbeat(&joined), Ok(()));
}

#[test]
fn a_newcomer_waits_until_the_others_have_joined_again() {
    let fixture = Fixture::new();
    let first = fixture.alone();
    let mut second = fixture.join(&fixture.invitation());
    assert!(second.try_recv().is_err());
    assert_eq!(
        fixture.heartbeat(&first),
        Err(ResponseError::RebalanceInProgress)
    );
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
    assert_eq!(fixture.heartbeat(&second), Ok(()));
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
    assert_eq!(
        fixture.heartbeat(&dead),
        Err(ResponseError::UnknownMemberId)
    );
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
        Err(ResponseError::RebalanceInProgress)
    );
    let again = fixture.join(&second.member).try_recv().unwrap().unwrap();
    assert_eq!(again.leader, second.member);
}

#[test]
fn one_that_does_not_join_again_in_time_is_left_behind() {
    let mut fixture = Fixture::new();
    let slow = fixture.alone();
    let mut second = fixture.join(&fixture.invitation());
    // It sends heartbeats, so it is alive, but it does not join.
    for _ in 0..61 {
        fixture.pass(Duration::from_secs(1));
        let _ = fixture.heartbeat(&slow);
    }
    let second = second.try_recv().unwrap().unwrap();
    assert_eq!(second.members.len(), 1);
    assert_eq!(
        fixture.heartbeat(&slow),
        Err(ResponseError::UnknownMemberId)
    );
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
        Ok(())
    );
    assert_eq!(
        fixture.heartbeat(&second),
        Err(ResponseError::RebalanceInProgress)
    );
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
    assert_eq!(may("somebody", 1), Err(ResponseError::IllegalGeneration));
    let joined = fixture.alone();
    assert_eq!(may(&joined.member, joined.generation), Ok(()));
    assert_eq!(
        may(&joined.member, joined.generation - 1),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(
        may("somebody", joined.generation),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(may("", -1), Err(ResponseError::UnknownMemberId));
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
    assert_eq!(
        fixture.heartbeat(&leader),
        Err(ResponseError::RebalanceInProgress)
    );
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
        ResponseError::InconsistentGroupProtocol
    );
}

#[test]
fn who_names_more_protocols_than_any_client_has_is_refused() {
    let fixture = Fixture::new();
    let mut request = request("", "");
    request.protocols = (0..65)
        .map(|number| (format!("protocol-{number}"), Bytes::new()))
        .collect();
    let refused = fixture.groups.join("g", request, fixture.now).try_recv();
    let refused = refused.unwrap().unwrap_err();
    assert_eq!(refused.code, ResponseError::InconsistentGroupProtocol);
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
fn a_group_has_no_more_static_members_than_others_and_they_can_come_back() {
    const MOST: usize = 1_000;
    let fixture = Fixture::new();
    let join = |number: usize| {
        let mut request = request("", "");
        request.instance = Some(number.to_string());
        fixture.groups.join("g", request, fixture.now)
    };
    let _joining: Vec<_> = (0..MOST).map(join).collect();
    let refused = join(MOST).try_recv().unwrap().unwrap_err();
    assert_eq!(refused.code, ResponseError::GroupMaxSizeReached);
    assert!(
        join(MOST / 2).try_recv().is_err(),
        "it waits for the others"
    );
}

#[test]
fn a_group_that_nobody_is_in_is_forgotten() {
    let mut fixture = Fixture::new();
    fixture.alone();
    fixture.invitation();
    fixture.pass(SESSION + Duration::from_secs(1));
    assert!(fixture.groups.groups().is_empty());
}

#[test]
fn groups_are_looked_through_when_something_of_them_may_be_over() {
    let mut fixture = Fixture::new();
    let due = |fixture: &Fixture| fixture.groups.due(fixture.now);
    assert_eq!(due(&fixture), None);
    let first = fixture.alone();
    let lost = |from: Instant| Some(from + SESSION + Duration::from_millis(1));
    assert_eq!(due(&fixture), lost(fixture.now));
    fixture.pass(Duration::from_secs(2));
    assert_eq!(fixture.heartbeat(&first), Ok(()));
    assert_eq!(due(&fixture), lost(fixture.now));
    // Nothing notifies when the connection of a waiting member breaks.
    let second = fixture.join(&fixture.invitation());
    assert_eq!(due(&fixture), Some(fixture.now + TICK));
    drop(second);
    fixture.pass(SESSION + Duration::from_secs(1));
    assert_eq!(due(&fixture), None);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_heard_of_any_more_is_put_out_as_soon_as_its_session_is_over() {
    let fixture = Fixture::new();
    let watching = fixture.groups.clone();
    let watched = tokio::spawn(async move { watching.watch().await });
    // The first check runs while there are no members.
    tokio::task::yield_now().await;
    fixture.alone();
    tokio::time::advance(SESSION).await;
    assert!(fixture.groups.describe("g").is_some());
    tokio::time::sleep(TICK).await;
    assert!(fixture.groups.describe("g").is_none());
    watched.abort();
}
