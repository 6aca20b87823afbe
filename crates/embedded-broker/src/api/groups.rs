//! Membership of consumer groups, and the requests of operators about groups.
#![expect(clippy::disallowed_methods, reason = "the broker runs on real time")]

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
        SyncGroupRequest, SyncGroupResponse,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        join_group_response::JoinGroupResponseMember,
        leave_group_response::MemberResponse,
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};
use tokio::time::Instant;

use super::{Broker, HOST, OK, code, text};
use crate::{
    groups::{Described, Join, Joined, Refusal},
    wire::Received,
};

/// The only supported type of groups (KIP-848).
const CLASSIC: StrBytes = StrBytes::from_static_str("Classic");
/// The state of a group that has committed offsets but no members.
const EMPTY: StrBytes = StrBytes::from_static_str("Empty");
/// The state of an unknown group.
const DEAD: StrBytes = StrBytes::from_static_str("Dead");
/// The first version of `JoinGroup` in which a client gets its member id before it joins (KIP-394).
const TOLD_ITS_ID: i16 = 4;

fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(u64::try_from(count).unwrap_or_default())
}

impl Broker {
    pub(super) async fn join_group(
        &self,
        request: JoinGroupRequest,
        received: &Received,
    ) -> JoinGroupResponse {
        if request.group_id.is_empty() {
            let member = request.member_id.to_string();
            let code = ResponseError::InvalidGroupId;
            return join_response(Err(Refusal { code, member }), received.version);
        }
        let rebalance = match received.version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        };
        let client = match received.client.is_empty() {
            true => "member".to_owned(),
            false => received.client.to_string(),
        };
        let mut join = Join {
            client,
            member: request.member_id.to_string(),
            instance: request.group_instance_id.map(|id| id.to_string()),
            kind: request.protocol_type.to_string(),
            protocols: request
                .protocols
                .into_iter()
                .map(|protocol| (protocol.name.to_string(), protocol.metadata))
                .collect(),
            session: milliseconds(request.session_timeout_ms),
            rebalance: milliseconds(rebalance),
        };
        let mut answer = self.join(&request.group_id, join.clone()).await;
        if received.version < TOLD_ITS_ID
            && let Err(Refusal { code, member }) = &answer
            && *code == ResponseError::MemberIdRequired
        {
            join.member.clone_from(member);
            answer = self.join(&request.group_id, join).await;
        }
        join_response(answer, received.version)
    }

    async fn join(&self, group: &str, join: Join) -> Result<Joined, Refusal> {
        let member = join.member.clone();
        let answered = self.groups.join(group, join, Instant::now());
        answered.await.unwrap_or_else(|_| {
            Err(Refusal {
                code: ResponseError::RebalanceInProgress,
                member,
            })
        })
    }

    pub(super) async fn sync_group(
        &self,
        request: SyncGroupRequest,
        _: &Received,
    ) -> SyncGroupResponse {
        let assignments = request
            .assignments
            .into_iter()
            .map(|share| (share.member_id.to_string(), share.assignment))
            .collect();
        let answered = self.groups.sync(
            &request.group_id,
            &request.member_id,
            request.generation_id,
            assignments,
            Instant::now(),
        );
        let answer = answered
            .await
            .unwrap_or(Err(ResponseError::RebalanceInProgress));
        SyncGroupResponse::default()
            .with_error_code(answer.as_ref().err().map_or(OK, ResponseError::code))
            .with_protocol_type(request.protocol_type)
            .with_protocol_name(request.protocol_name)
            .with_assignment(answer.unwrap_or_default())
    }

    pub(super) async fn heartbeat(
        &self,
        request: HeartbeatRequest,
        _: &Received,
    ) -> HeartbeatResponse {
        let heard = self.groups.heartbeat(
            &request.group_id,
            &request.member_id,
            request.generation_id,
            Instant::now(),
        );
        HeartbeatResponse::default().with_error_code(code(heard))
    }

    pub(super) async fn leave_group(
        &self,
        request: LeaveGroupRequest,
        received: &Received,
    ) -> LeaveGroupResponse {
        let leave = |member: &str| self.groups.leave(&request.group_id, member, Instant::now());
        // Old clients name one member, newer clients send a list.
        if received.version < 3 {
            return LeaveGroupResponse::default().with_error_code(code(leave(&request.member_id)));
        }
        let members = request.members.iter().map(|member| {
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(code(leave(&member.member_id)))
        });
        LeaveGroupResponse::default().with_members(members.collect())
    }

    pub(super) async fn describe_groups(
        &self,
        request: DescribeGroupsRequest,
        _: &Received,
    ) -> DescribeGroupsResponse {
        let mut groups = Vec::with_capacity(request.groups.len());
        for id in request.groups {
            let group = DescribedGroup::default().with_group_id(id.clone());
            groups.push(match self.groups.describe(&id) {
                Some(described) => describe(group, described),
                None => match self.log.committed(&id).await {
                    Ok(offsets) if offsets.is_empty() => group.with_group_state(DEAD),
                    Ok(_) => group.with_group_state(EMPTY),
                    Err(_) => group.with_error_code(ResponseError::CoordinatorNotAvailable.code()),
                },
            });
        }
        DescribeGroupsResponse::default().with_groups(groups)
    }

    pub(super) async fn list_groups(
        &self,
        request: ListGroupsRequest,
        _: &Received,
    ) -> ListGroupsResponse {
        let Ok(committed) = self.log.groups().await else {
            return ListGroupsResponse::default()
                .with_error_code(ResponseError::CoordinatorNotAvailable.code());
        };
        let present = self.groups.list();
        let empty = committed
            .into_iter()
            .filter(|name| present.iter().all(|group| group.name != *name))
            .map(|name| (name, String::new(), EMPTY));
        let listed = present
            .iter()
            .map(|group| (group.name.clone(), group.kind.clone(), text(group.state)));
        let is_in = |filter: &[StrBytes], value: &StrBytes| {
            let same = |one: &StrBytes| one.eq_ignore_ascii_case(value);
            filter.is_empty() || filter.iter().any(same)
        };
        let groups = listed
            .chain(empty)
            .filter(|(_, _, state)| {
                is_in(&request.states_filter, state) && is_in(&request.types_filter, &CLASSIC)
            })
            .map(|(name, kind, state)| {
                ListedGroup::default()
                    .with_group_id(GroupId(text(name)))
                    .with_protocol_type(text(kind))
                    .with_group_state(state)
                    .with_group_type(CLASSIC)
            });
        ListGroupsResponse::default().with_groups(groups.collect())
    }

    pub(super) async fn delete_groups(
        &self,
        request: DeleteGroupsRequest,
        _: &Received,
    ) -> DeleteGroupsResponse {
        let mut results = Vec::with_capacity(request.groups_names.len());
        for id in request.groups_names {
            let has_members = self
                .groups
                .describe(&id)
                .is_some_and(|group| !group.members.is_empty());
            let deleted = if has_members {
                Err(ResponseError::NonEmptyGroup)
            } else {
                let name = id.to_string();
                let deleted = self
                    .log
                    .change(move |changes| changes.delete_group(&name))
                    .await;
                match deleted {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(ResponseError::GroupIdNotFound),
                    Err(_) => Err(ResponseError::CoordinatorNotAvailable),
                }
            };
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(id)
                    .with_error_code(code(deleted)),
            );
        }
        DeleteGroupsResponse::default().with_results(results)
    }
}

fn join_response(answer: Result<Joined, Refusal>, version: i16) -> JoinGroupResponse {
    match answer {
        Ok(joined) => {
            let members = joined.members.into_iter().map(|(id, instance, metadata)| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(id))
                    .with_group_instance_id(instance.map(text))
                    .with_metadata(metadata)
            });
            JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_type(Some(text(joined.kind)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_member_id(text(joined.member))
                .with_members(members.collect())
        }
        Err(Refusal { code, member }) => JoinGroupResponse::default()
            .with_error_code(code.code())
            .with_generation_id(-1)
            // From this version on, "none" is written as null.
            .with_protocol_name((version < 7).then(StrBytes::new))
            .with_member_id(text(member)),
    }
}

fn describe(group: DescribedGroup, described: Described) -> DescribedGroup {
    let members = described.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(member.instance.map(text))
            .with_client_id(text(member.client))
            .with_client_host(HOST)
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    group
        .with_group_state(text(described.state))
        .with_protocol_type(text(described.kind))
        .with_protocol_data(text(described.protocol))
        .with_members(members.collect())
}
