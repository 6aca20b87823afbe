//! The coordinator of the consumer groups, with the eviction of dead members made known to the living.
//!
//! Tansu drops a member that has not been heard of for the session's time at whichever request comes next, and tells of
//! it, by "rebalance in progress", only when that request is a heartbeat. When it is the leader's sync, the assignment
//! still gives partitions to the dead one, nobody rebalances, and those partitions are read by nobody until the group
//! changes again. So each sync is preceded by a heartbeat of the same member: whom that evicts, the leader hears of.

use async_trait::async_trait;
use tansu_broker::{
    Result,
    coordinator::group::{Coordinator, OffsetCommit},
};
use tansu_sans_io::{
    Body, ErrorCode, SyncGroupResponse,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic},
    sync_group_request::SyncGroupRequestAssignment,
};

/// A coordinator that tells of dead members also when a sync finds them.
#[derive(Clone, Debug)]
pub(super) struct Groups<C>(pub(super) C);

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
        reason: Option<&str>,
    ) -> Result<Body> {
        self.0
            .join(
                client_id,
                group_id,
                session_timeout_ms,
                rebalance_timeout_ms,
                member_id,
                group_instance_id,
                protocol_type,
                protocols,
                reason,
            )
            .await
    }

    async fn sync(
        &mut self,
        group_id: &str,
        generation_id: i32,
        member_id: &str,
        group_instance_id: Option<&str>,
        protocol_type: Option<&str>,
        protocol_name: Option<&str>,
        assignments: Option<&[SyncGroupRequestAssignment]>,
    ) -> Result<Body> {
        let heard = self
            .0
            .heartbeat(group_id, generation_id, member_id, group_instance_id)
            .await?;
        let rebalance = i16::from(ErrorCode::RebalanceInProgress);
        if matches!(&heard, Body::HeartbeatResponse(heard) if heard.error_code == rebalance) {
            return Ok(SyncGroupResponse::default()
                .throttle_time_ms(Some(0))
                .error_code(rebalance)
                .protocol_type(protocol_type.map(str::to_owned))
                .protocol_name(protocol_name.map(str::to_owned))
                .into());
        }
        self.0
            .sync(
                group_id,
                generation_id,
                member_id,
                group_instance_id,
                protocol_type,
                protocol_name,
                assignments,
            )
            .await
    }

    async fn heartbeat(
        &mut self,
        group_id: &str,
        generation_id: i32,
        member_id: &str,
        group_instance_id: Option<&str>,
    ) -> Result<Body> {
        self.0
            .heartbeat(group_id, generation_id, member_id, group_instance_id)
            .await
    }

    async fn leave(
        &mut self,
        group_id: &str,
        member_id: Option<&str>,
        members: Option<&[MemberIdentity]>,
    ) -> Result<Body> {
        self.0.leave(group_id, member_id, members).await
    }

    async fn offset_commit(&mut self, detail: OffsetCommit<'_>) -> Result<Body> {
        self.0.offset_commit(detail).await
    }

    async fn offset_fetch(
        &mut self,
        group_id: Option<&str>,
        topics: Option<&[OffsetFetchRequestTopic]>,
        groups: Option<&[OffsetFetchRequestGroup]>,
        require_stable: Option<bool>,
    ) -> Result<Body> {
        self.0
            .offset_fetch(group_id, topics, groups, require_stable)
            .await
    }
}
