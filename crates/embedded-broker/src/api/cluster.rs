//! The first requests of a client: versions, topics and nodes, coordinators, producer ids.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsResponse, BrokerId, DescribeClusterRequest, DescribeClusterResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
        InitProducerIdResponse, MetadataRequest, MetadataResponse, ProducerId,
        api_versions_response::ApiVersion,
        describe_cluster_response::DescribeClusterBroker,
        find_coordinator_response::Coordinator,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
    protocol::StrBytes,
};

use super::{Broker, HOST, NO_TRANSACTIONS, NODE, OK, text, topic, topic_name};
use crate::{
    log::Topic,
    record_batch::LEADER_EPOCH,
    wire::{REQUESTS, Received},
};

/// Kinds of coordinators.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// `DescribeCluster` for brokers, not for controllers.
const BROKERS: i8 = 1;

/// The supported requests. The answer is the same for every client and every version of this request.
pub(super) fn api_versions(received: &Received) -> ApiVersionsResponse {
    let error = match received.is_supported {
        true => OK,
        false => ResponseError::UnsupportedVersion.code(),
    };
    let versions = REQUESTS.iter().map(|request| {
        ApiVersion::default()
            .with_api_key(request.key as i16)
            .with_min_version(request.announced_from())
            .with_max_version(request.newest)
    });
    ApiVersionsResponse::default()
        .with_error_code(error)
        .with_api_keys(versions.collect())
}

impl Broker {
    fn port(&self) -> i32 {
        i32::from(self.port)
    }

    pub(super) async fn metadata(
        &self,
        request: MetadataRequest,
        received: &Received,
    ) -> MetadataResponse {
        let topics = self.log.topics();
        let wanted = request
            .topics
            // In the oldest version, an empty list requests all topics.
            .filter(|wanted| received.version > 0 || !wanted.is_empty());
        let described = match wanted {
            None => topics.all().map(|topic| describe(topic)).collect(),
            Some(wanted) => wanted
                .into_iter()
                .map(|wanted| {
                    let name = wanted.name.unwrap_or_default();
                    match topic(&topics, &name, &wanted.topic_id) {
                        Ok(topic) => describe(topic),
                        Err(error) => MetadataResponseTopic::default()
                            .with_name(Some(name))
                            .with_topic_id(wanted.topic_id)
                            .with_error_code(error.code()),
                    }
                })
                .collect(),
        };
        MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(NODE)
                    .with_host(HOST)
                    .with_port(self.port()),
            ])
            .with_cluster_id(Some(text(self.log.cluster())))
            .with_controller_id(NODE)
            .with_topics(described)
    }

    pub(super) async fn describe_cluster(
        &self,
        request: DescribeClusterRequest,
        received: &Received,
    ) -> DescribeClusterResponse {
        if received.version > 0 && request.endpoint_type != BROKERS {
            return DescribeClusterResponse::default()
                .with_error_code(ResponseError::UnsupportedEndpointType.code());
        }
        DescribeClusterResponse::default()
            .with_cluster_id(text(self.log.cluster()))
            .with_controller_id(NODE)
            .with_brokers(vec![
                DescribeClusterBroker::default()
                    .with_broker_id(NODE)
                    .with_host(HOST)
                    .with_port(self.port()),
            ])
    }

    pub(super) async fn find_coordinator(
        &self,
        request: FindCoordinatorRequest,
        received: &Received,
    ) -> FindCoordinatorResponse {
        let refused = match request.key_type {
            GROUP => None,
            TRANSACTION => Some((
                ResponseError::TransactionalIdAuthorizationFailed,
                NO_TRANSACTIONS,
            )),
            _ => Some((
                ResponseError::InvalidRequest,
                "groups have a coordinator here, nothing else",
            )),
        };
        let (error, message, node, host, port) = match refused {
            None => (OK, None, NODE, HOST, self.port()),
            Some((error, message)) => (
                error.code(),
                Some(StrBytes::from_static_str(message)),
                BrokerId(-1),
                StrBytes::new(),
                -1,
            ),
        };
        if received.version < 4 {
            return FindCoordinatorResponse::default()
                .with_error_code(error)
                .with_error_message(message)
                .with_node_id(node)
                .with_host(host)
                .with_port(port);
        }
        let coordinators = request.coordinator_keys.into_iter().map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_error_code(error)
                .with_error_message(message.clone())
                .with_node_id(node)
                .with_host(host.clone())
                .with_port(port)
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    }

    pub(super) async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
        _: &Received,
    ) -> InitProducerIdResponse {
        let refused = |error: ResponseError| {
            InitProducerIdResponse::default()
                .with_error_code(error.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        };
        if request.transactional_id.is_some() {
            return refused(ResponseError::TransactionalIdAuthorizationFailed);
        }
        match self.log.producer_id().await {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            // Clients retry after this error.
            Err(_) => refused(ResponseError::CoordinatorNotAvailable),
        }
    }
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, _)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}
