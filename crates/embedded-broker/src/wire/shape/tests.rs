//! Checks the layouts against what `kafka-protocol` encodes, and against malicious requests.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AlterConfigsRequest, ApiKey, ApiVersionsRequest, BrokerId, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest,
        FindCoordinatorRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest,
        InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
        ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
        OffsetForLeaderEpochRequest, ProduceRequest, RequestHeader, SyncGroupRequest, TopicName,
        TransactionalId, alter_configs_request, create_partitions_request, create_topics_request,
        delete_records_request, delete_topics_request, describe_configs_request, fetch_request,
        incremental_alter_configs_request, join_group_request, leave_group_request,
        list_offsets_request, metadata_request, offset_commit_request, offset_fetch_request,
        offset_for_leader_epoch_request, produce_request, sync_group_request,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use proptest::prelude::*;

use super::*;
use crate::wire::{REQUESTS, Received};

fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}

fn name() -> TopicName {
    TopicName(text("a-topic"))
}

fn bytes() -> Bytes {
    Bytes::from_static(b"some bytes")
}

fn twice<T: Clone>(value: T) -> Vec<T> {
    vec![value.clone(), value]
}

fn encode(request: &impl Encodable, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    body.freeze()
}

/// A request of this kind with a value in each field of the version.
fn sample(key: ApiKey, version: i16) -> Bytes {
    let has_ids = |first: i16| version >= first;
    match key {
        ApiKey::Produce => {
            let partition =
                produce_request::PartitionProduceData::default().with_records(Some(bytes()));
            let topic = produce_request::TopicProduceData::default()
                .with_name(if has_ids(13) {
                    TopicName::default()
                } else {
                    name()
                })
                .with_partition_data(twice(partition));
            let request = ProduceRequest::default()
                .with_transactional_id(Some(TransactionalId(text("transaction"))))
                .with_topic_data(twice(topic));
            encode(&request, version)
        }
        ApiKey::Fetch => {
            let topic = fetch_request::FetchTopic::default()
                .with_topic(if has_ids(13) {
                    TopicName::default()
                } else {
                    name()
                })
                .with_partitions(twice(fetch_request::FetchPartition::default()));
            let forgotten = fetch_request::ForgottenTopic::default()
                .with_topic(if has_ids(13) {
                    TopicName::default()
                } else {
                    name()
                })
                .with_partitions(vec![1, 2]);
            let mut request = FetchRequest::default()
                .with_topics(twice(topic))
                .with_rack_id(if has_ids(11) { text("rack") } else { text("") });
            if version >= 7 {
                request = request.with_forgotten_topics_data(twice(forgotten));
            }
            if version >= 12 {
                request = request.with_cluster_id(Some(text("cluster")));
            }
            encode(&request, version)
        }
        ApiKey::ListOffsets => {
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name())
                .with_partitions(twice(list_offsets_request::ListOffsetsPartition::default()));
            encode(
                &ListOffsetsRequest::default().with_topics(twice(topic)),
                version,
            )
        }
        ApiKey::Metadata => {
            let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
            encode(
                &MetadataRequest::default().with_topics(Some(twice(topic))),
                version,
            )
        }
        ApiKey::OffsetCommit => {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default()
                .with_committed_metadata(Some(text("metadata")));
            let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name())
                .with_partitions(twice(partition));
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(text("group")))
                .with_member_id(text("member"))
                .with_group_instance_id((version >= 7).then(|| text("instance")))
                .with_topics(twice(topic));
            encode(&request, version)
        }
        ApiKey::OffsetFetch => {
            let request = OffsetFetchRequest::default();
            let request = if version < 8 {
                let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(name())
                    .with_partition_indexes(vec![1, 2]);
                request
                    .with_group_id(GroupId(text("group")))
                    .with_topics(Some(twice(topic)))
            } else {
                let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
                    .with_name(name())
                    .with_partition_indexes(vec![1, 2]);
                let group = offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text("group")))
                    .with_topics(Some(twice(topic)));
                request.with_groups(twice(group))
            };
            encode(&request, version)
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::default();
            let request = if version < 4 {
                request.with_key(text("group"))
            } else {
                request.with_coordinator_keys(twice(text("group")))
            };
            encode(&request, version)
        }
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(bytes());
            let request = JoinGroupRequest::default()
                .with_group_id(GroupId(text("group")))
                .with_protocol_type(text("consumer"))
                .with_group_instance_id((version >= 5).then(|| text("instance")))
                .with_reason((version >= 8).then(|| text("reason")))
                .with_protocols(twice(protocol));
            encode(&request, version)
        }
        ApiKey::Heartbeat => encode(
            &HeartbeatRequest::default()
                .with_group_id(GroupId(text("group")))
                .with_group_instance_id((version >= 3).then(|| text("instance"))),
            version,
        ),
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(GroupId(text("group")));
            let member = leave_group_request::MemberIdentity::default()
                .with_member_id(text("member"))
                .with_reason((version >= 5).then(|| text("reason")));
            let request = if version < 3 {
                request.with_member_id(text("member"))
            } else {
                request.with_members(twice(member))
            };
            encode(&request, version)
        }
        ApiKey::SyncGroup => {
            let share = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("member"))
                .with_assignment(bytes());
            let request = SyncGroupRequest::default()
                .with_group_id(GroupId(text("group")))
                .with_protocol_name((version >= 5).then(|| text("range")))
                .with_assignments(twice(share));
            encode(&request, version)
        }
        ApiKey::DescribeGroups => encode(
            &DescribeGroupsRequest::default().with_groups(twice(GroupId(text("group")))),
            version,
        ),
        ApiKey::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request = request.with_states_filter(twice(text("Stable")));
            }
            if version >= 5 {
                request = request.with_types_filter(twice(text("Classic")));
            }
            encode(&request, version)
        }
        ApiKey::ApiVersions => {
            let named = |value| if version >= 3 { text(value) } else { text("") };
            let request = ApiVersionsRequest::default()
                .with_client_software_name(named("client"))
                .with_client_software_version(named("1"));
            encode(&request, version)
        }
        ApiKey::CreateTopics => {
            let assignment = create_topics_request::CreatableReplicaAssignment::default()
                .with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
            let config = create_topics_request::CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(name())
                .with_assignments(twice(assignment))
                .with_configs(twice(config));
            encode(
                &CreateTopicsRequest::default().with_topics(twice(topic)),
                version,
            )
        }
        ApiKey::DeleteTopics => {
            let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name()));
            let request = DeleteTopicsRequest::default();
            let request = if version < 6 {
                request.with_topic_names(twice(name()))
            } else {
                request.with_topics(twice(topic))
            };
            encode(&request, version)
        }
        ApiKey::DeleteRecords => {
            let topic = delete_records_request::DeleteRecordsTopic::default()
                .with_name(name())
                .with_partitions(twice(
                    delete_records_request::DeleteRecordsPartition::default(),
                ));
            encode(
                &DeleteRecordsRequest::default().with_topics(twice(topic)),
                version,
            )
        }
        ApiKey::InitProducerId => encode(
            &InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(text("transaction")))),
            version,
        ),
        ApiKey::OffsetForLeaderEpoch => {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(name())
                .with_partitions(twice(partition));
            encode(
                &OffsetForLeaderEpochRequest::default().with_topics(twice(topic)),
                version,
            )
        }
        ApiKey::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_name(text("topic"))
                .with_configuration_keys(Some(twice(text("retention.ms"))));
            encode(
                &DescribeConfigsRequest::default().with_resources(twice(resource)),
                version,
            )
        }
        ApiKey::AlterConfigs => {
            let config = alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_name(text("topic"))
                .with_configs(twice(config));
            encode(
                &AlterConfigsRequest::default().with_resources(twice(resource)),
                version,
            )
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = incremental_alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_name(text("topic"))
                .with_configs(twice(config));
            let request = IncrementalAlterConfigsRequest::default();
            encode(&request.with_resources(twice(resource)), version)
        }
        ApiKey::CreatePartitions => {
            let assignment = create_partitions_request::CreatePartitionsAssignment::default()
                .with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
            let topic = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(name())
                .with_assignments(Some(twice(assignment)));
            encode(
                &CreatePartitionsRequest::default().with_topics(twice(topic)),
                version,
            )
        }
        ApiKey::DeleteGroups => encode(
            &DeleteGroupsRequest::default().with_groups_names(twice(GroupId(text("group")))),
            version,
        ),
        ApiKey::DescribeCluster => encode(&DescribeClusterRequest::default(), version),
        other => panic!("there is no sample of {other:?}"),
    }
}

/// Every request in every supported version, with a value in each field. Topics are named `a-topic`, groups `group`.
pub(crate) fn samples() -> impl Iterator<Item = (&'static Request, i16, Bytes)> {
    REQUESTS.iter().flat_map(|request| {
        (0..=request.newest)
            .filter(|version| request.takes(*version))
            .map(move |version| (request, version, sample(request.key, version)))
    })
}

/// The request as a client sends it.
pub(crate) fn frame(request: &Request, version: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(request.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(text("client")));
    let header_version = request.key.request_header_version(version);
    header.encode(&mut frame, header_version).unwrap();
    frame.put_slice(body);
    frame.freeze()
}

#[test]
fn each_request_in_each_version_is_laid_out_as_it_is_written() {
    let mut count = 0;
    for (request, version, body) in samples() {
        let checked = check(request, version, &body);
        assert_eq!(checked, Ok(0), "{:?} {version}", request.key);
        let received = Received::read(frame(request, version, &body)).unwrap();
        assert_eq!((received.key, received.version), (request.key, version));
        assert_eq!(received.client.as_str(), "client");
        assert!(read_body(&received), "{:?} {version}", request.key);
        count += 1;
    }
    assert_eq!(count, 156);
}

#[test]
fn what_is_cut_off_anywhere_is_refused() {
    for (request, version, body) in samples() {
        for length in 0..body.len() {
            let checked = check(request, version, &body[..length]);
            assert!(checked.is_err(), "{:?} {version} {length}", request.key);
        }
    }
}

#[test]
fn an_array_longer_than_the_request_is_refused_before_room_is_made_for_it() {
    let request = REQUESTS
        .iter()
        .find(|one| one.key == ApiKey::Metadata)
        .unwrap();
    let old = i32::MAX.to_be_bytes();
    assert_eq!(check(request, 4, &old), Err(ShapeError::TooMany));
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(check(request, 9, &compact), Err(ShapeError::TooMany));
    let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(check(request, 9, &long), Err(ShapeError::LongNumber));
    assert_eq!(
        check(request, 4, &(-2_i32).to_be_bytes()),
        Err(ShapeError::Negative)
    );
    let few = 5_i32.to_be_bytes();
    assert_eq!(check(request, 4, &few), Err(ShapeError::CutOff));
}

#[test]
fn tagged_fields_of_all_elements_together_are_no_more_than_elements_may_be() {
    const EACH: usize = 60_000;
    let request = REQUESTS
        .iter()
        .find(|one| one.key == ApiKey::Metadata)
        .unwrap();
    let body = |topics: u8| {
        let mut body = BytesMut::new();
        body.put_u8(topics + 1);
        for _ in 0..topics {
            // Its id, no name, and the number of tagged fields: 60,000 with seven bits per byte.
            body.put_bytes(0, 16 + 1);
            body.put_slice(&[0xe0, 0xd4, 0x03]);
            (0..EACH).for_each(|_| body.put_slice(&[1, 0]));
        }
        // Three booleans, and no tagged field.
        body.put_bytes(0, 3 + 1);
        body
    };
    assert_eq!(check(request, 10, &body(1)), Ok(0));
    assert_eq!(check(request, 10, &body(2)), Err(ShapeError::TooMany));
}

/// Decodes the body of a request whose lengths passed the check.
fn read_body(received: &Received) -> bool {
    fn of<R: Decodable>(received: &Received) -> bool {
        received.body::<R>().is_ok()
    }
    match received.key {
        ApiKey::Produce => of::<ProduceRequest>(received),
        ApiKey::Fetch => of::<FetchRequest>(received),
        ApiKey::ListOffsets => of::<ListOffsetsRequest>(received),
        ApiKey::Metadata => of::<MetadataRequest>(received),
        ApiKey::OffsetCommit => of::<OffsetCommitRequest>(received),
        ApiKey::OffsetFetch => of::<OffsetFetchRequest>(received),
        ApiKey::FindCoordinator => of::<FindCoordinatorRequest>(received),
        ApiKey::JoinGroup => of::<JoinGroupRequest>(received),
        ApiKey::Heartbeat => of::<HeartbeatRequest>(received),
        ApiKey::LeaveGroup => of::<LeaveGroupRequest>(received),
        ApiKey::SyncGroup => of::<SyncGroupRequest>(received),
        ApiKey::DescribeGroups => of::<DescribeGroupsRequest>(received),
        ApiKey::ListGroups => of::<ListGroupsRequest>(received),
        ApiKey::ApiVersions => of::<ApiVersionsRequest>(received),
        ApiKey::CreateTopics => of::<CreateTopicsRequest>(received),
        ApiKey::DeleteTopics => of::<DeleteTopicsRequest>(received),
        ApiKey::DeleteRecords => of::<DeleteRecordsRequest>(received),
        ApiKey::InitProducerId => of::<InitProducerIdRequest>(received),
        ApiKey::OffsetForLeaderEpoch => of::<OffsetForLeaderEpochRequest>(received),
        ApiKey::DescribeConfigs => of::<DescribeConfigsRequest>(received),
        ApiKey::AlterConfigs => of::<AlterConfigsRequest>(received),
        ApiKey::IncrementalAlterConfigs => of::<IncrementalAlterConfigsRequest>(received),
        ApiKey::CreatePartitions => of::<CreatePartitionsRequest>(received),
        ApiKey::DeleteGroups => of::<DeleteGroupsRequest>(received),
        ApiKey::DescribeCluster => of::<DescribeClusterRequest>(received),
        other => panic!("there is no type of {other:?}"),
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reading_of_a_request_panic(
        which in 0..REQUESTS.len(),
        version in 0_i16..14,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let request = &REQUESTS[which];
        if request.takes(version)
            && let Ok(received) = Received::read(frame(request, version, &body))
        {
            let _ = read_body(&received);
        }
    }

    #[test]
    fn a_byte_that_is_another_makes_no_reading_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let all: Vec<_> = samples().collect();
        let (request, version, body) = &all[which.index(all.len())];
        let mut body = body.to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(received) = Received::read(frame(request, *version, &body)) {
            let _ = read_body(&received);
        }
    }
}
