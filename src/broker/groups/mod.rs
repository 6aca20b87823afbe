//! The coordinator of the consumer groups: membership of our own, offsets kept by the storage library.
//!
//! The library's own coordinator loses track of members when processes die at unlucky moments: it can drop a dead member
//! without telling the living, whose partitions are then read by nobody. [`membership`] is the protocol as Apache Kafka has it.

mod membership;

use std::time::Duration;

use async_trait::async_trait;
use tansu_broker::{
    Result,
    coordinator::group::{Coordinator, OffsetCommit},
};
use tansu_sans_io::{
    Body, ErrorCode, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
    OffsetCommitResponse, SyncGroupResponse,
    join_group_request::JoinGroupRequestProtocol,
    join_group_response::JoinGroupResponseMember,
    leave_group_request::MemberIdentity,
    leave_group_response::MemberResponse,
    offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic},
    sync_group_request::SyncGroupRequestAssignment,
};
use tokio::time::Instant;

use membership::{Join, JoinAnswer, Membership, Refusal};

/// How often [`Groups::tick`] is to be called.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Consumer groups; `offsets` keeps what they commit.
#[derive(Clone, Debug)]
pub(super) struct Groups<C> {
    offsets: C,
    membership: Membership,
}

impl<C> Groups<C> {
    /// Groups without members.
    pub(super) fn new(offsets: C) -> Self {
        Self {
            offsets,
            membership: Membership::default(),
        }
    }

    /// Puts out members that were not heard of in time.
    pub(super) fn tick(&self) {
        self.membership.tick(Instant::now());
    }
}

fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or_default())
}

#[async_trait]
impl<C: Coordinator> Coordinator for Groups<C> {
    async fn join(
        &mut self,
        client_id: Option<&str>,
        group_id: &str,
        session_timeout_ms: i32,
        rebalance_timeout_ms: Option<i32>,
        member_id: &str,
        group_instance_id: Option<&str>,
        protocol_type: &str,
        protocols: Option<&[JoinGroupRequestProtocol]>,
        _reason: Option<&str>,
    ) -> Result<Body> {
        let request = Join {
            client: client_id.unwrap_or("member").to_owned(),
            member: member_id.to_owned(),
            instance: group_instance_id.map(str::to_owned),
            kind: protocol_type.to_owned(),
            protocols: protocols
                .unwrap_or_default()
                .iter()
                .map(|protocol| (protocol.name.clone(), protocol.metadata.clone()))
                .collect(),
            session: milliseconds(session_timeout_ms),
            rebalance: milliseconds(rebalance_timeout_ms.unwrap_or(session_timeout_ms)),
        };
        let answered = self.membership.join(group_id, request, Instant::now());
        let answer = answered.await.unwrap_or_else(|_| {
            Err(Refusal {
                code: ErrorCode::RebalanceInProgress,
                member: member_id.to_owned(),
            })
        });
        Ok(join_body(answer, protocol_type))
    }

    async fn sync(
        &mut self,
        group_id: &str,
        generation_id: i32,
        member_id: &str,
        _group_instance_id: Option<&str>,
        protocol_type: Option<&str>,
        protocol_name: Option<&str>,
        assignments: Option<&[SyncGroupRequestAssignment]>,
    ) -> Result<Body> {
        let assignments = assignments
            .unwrap_or_default()
            .iter()
            .map(|share| (share.member_id.clone(), share.assignment.clone()))
            .collect();
        let answered = self.membership.sync(
            group_id,
            member_id,
            generation_id,
            assignments,
            Instant::now(),
        );
        let answer = answered
            .await
            .unwrap_or(Err(ErrorCode::RebalanceInProgress));
        let code = answer.as_ref().err().copied().unwrap_or(ErrorCode::None);
        Ok(SyncGroupResponse::default()
            .throttle_time_ms(Some(0))
            .error_code(code.into())
            .protocol_type(protocol_type.map(str::to_owned))
            .protocol_name(protocol_name.map(str::to_owned))
            .assignment(answer.unwrap_or_default())
            .into())
    }

    async fn heartbeat(
        &mut self,
        group_id: &str,
        generation_id: i32,
        member_id: &str,
        _group_instance_id: Option<&str>,
    ) -> Result<Body> {
        let code = self
            .membership
            .heartbeat(group_id, member_id, generation_id, Instant::now());
        Ok(HeartbeatResponse::default()
            .throttle_time_ms(Some(0))
            .error_code(code.into())
            .into())
    }

    async fn leave(
        &mut self,
        group_id: &str,
        member_id: Option<&str>,
        members: Option<&[MemberIdentity]>,
    ) -> Result<Body> {
        // Old clients name one, newer ones a list.
        let one = member_id.map(|id| (id.to_owned(), None));
        let more = members
            .unwrap_or_default()
            .iter()
            .map(|member| (member.member_id.clone(), member.group_instance_id.clone()));
        let mut of_one = ErrorCode::None;
        let left = one
            .into_iter()
            .chain(more)
            .map(|(id, instance)| {
                let code = self.membership.leave(group_id, &id, Instant::now());
                if member_id == Some(id.as_str()) {
                    of_one = code;
                }
                MemberResponse::default()
                    .member_id(id)
                    .group_instance_id(instance)
                    .error_code(code.into())
            })
            .collect();
        Ok(LeaveGroupResponse::default()
            .throttle_time_ms(Some(0))
            .error_code(of_one.into())
            .members(Some(left))
            .into())
    }

    async fn offset_commit(&mut self, detail: OffsetCommit<'_>) -> Result<Body> {
        let allowed = self.membership.may_commit(
            detail.group_id,
            detail.member_id.unwrap_or_default(),
            detail.generation_id_or_member_epoch.unwrap_or(-1),
            Instant::now(),
        );
        match allowed {
            Ok(()) => self.offsets.offset_commit(detail).await,
            Err(code) => Ok(refused_commit(&detail, code)),
        }
    }

    async fn offset_fetch(
        &mut self,
        group_id: Option<&str>,
        topics: Option<&[OffsetFetchRequestTopic]>,
        groups: Option<&[OffsetFetchRequestGroup]>,
        require_stable: Option<bool>,
    ) -> Result<Body> {
        self.offsets
            .offset_fetch(group_id, topics, groups, require_stable)
            .await
    }
}

fn join_body(answer: JoinAnswer, protocol_type: &str) -> Body {
    let response = JoinGroupResponse::default()
        .throttle_time_ms(Some(0))
        .skip_assignment(Some(false));
    match answer {
        Ok(joined) => response
            .error_code(ErrorCode::None.into())
            .generation_id(joined.generation)
            .protocol_type(Some(joined.kind))
            .protocol_name(Some(joined.protocol))
            .leader(joined.leader)
            .member_id(joined.member)
            .members(Some(
                joined
                    .members
                    .into_iter()
                    .map(|(id, instance, metadata)| {
                        JoinGroupResponseMember::default()
                            .member_id(id)
                            .group_instance_id(instance)
                            .metadata(metadata)
                    })
                    .collect(),
            ))
            .into(),
        Err(Refusal { code, member }) => response
            .error_code(code.into())
            .generation_id(-1)
            .protocol_type(Some(protocol_type.to_owned()))
            .protocol_name(Some(String::new()))
            .leader(String::new())
            .member_id(member)
            .members(Some(Vec::new()))
            .into(),
    }
}

fn refused_commit(detail: &OffsetCommit<'_>, code: ErrorCode) -> Body {
    let topics = detail
        .topics
        .unwrap_or_default()
        .iter()
        .map(|topic| {
            let partitions = topic.partitions.iter().flatten().map(|partition| {
                OffsetCommitResponsePartition::default()
                    .partition_index(partition.partition_index)
                    .error_code(code.into())
            });
            OffsetCommitResponseTopic::default()
                .name(topic.name.clone())
                .partitions(Some(partitions.collect()))
        })
        .collect();
    OffsetCommitResponse::default()
        .throttle_time_ms(Some(0))
        .topics(Some(topics))
        .into()
}
