//! Creates topics, adds partitions, deletes topics, and deletes records from their beginning.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
        CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
        delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
};
use uuid::Uuid;

use super::{Broker, NODE, Refusal, code, parts, refusal, text, topic, topic_name, unavailable};
use crate::{
    log::{Changes, Failure, KNOWN, Topic, TopicSettings, Topics},
    wire::Received,
};

/// Most partitions of one topic.
const MOST_PARTITIONS: usize = 1_000;
/// Most partitions of all topics together.
const MOST_IN_ALL: usize = 10_000;
/// Longest name of a topic, in bytes, as in Kafka.
const LONGEST_NAME: usize = 249;
/// The source of a setting (`DescribeConfigs`): given for the topic, or the default.
const OF_TOPIC: i8 = 1;
const OF_DEFAULT: i8 = 5;

/// A topic that passed validation and may be created.
struct Wanted {
    name: String,
    partitions: usize,
    settings: TopicSettings,
}

impl Broker {
    pub(super) async fn create_topics(
        &self,
        request: CreateTopicsRequest,
        _: &Received,
    ) -> CreateTopicsResponse {
        let mut names = HashSet::new();
        let twice: HashSet<_> = request
            .topics
            .iter()
            .map(|topic| topic.name.clone())
            .filter(|name| !names.insert(name.clone()))
            .collect();
        let mut responses = Vec::with_capacity(request.topics.len());
        for asked in request.topics {
            let name = asked.name.clone();
            let wanted = match twice.contains(&name) {
                true => Err(refusal(
                    ResponseError::InvalidRequest,
                    "the request names the topic twice",
                )),
                false => wanted(asked),
            };
            let made = match wanted {
                Ok(wanted) => self.create_topic(wanted, request.validate_only).await,
                Err(refusal) => Err(refusal),
            };
            let (error_code, error_message) = parts(&made);
            let response = CreatableTopicResult::default()
                .with_name(name)
                .with_error_code(error_code)
                .with_error_message(error_message);
            responses.push(match made {
                Ok((topic, partitions)) => response
                    .with_topic_id(topic.id)
                    .with_num_partitions(i32::try_from(partitions).unwrap_or(-1))
                    .with_replication_factor(1)
                    .with_configs(Some(settings_of(&topic))),
                Err(_) => response
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
                    .with_configs(Some(Vec::new())),
            });
        }
        CreateTopicsResponse::default().with_topics(responses)
    }

    /// The topic, and how many partitions it has, or would have.
    async fn create_topic(
        &self,
        wanted: Wanted,
        only_check: bool,
    ) -> Result<(Arc<Topic>, usize), Refusal> {
        let count = wanted.partitions;
        let work = move |changes: &mut Changes<'_>| create(changes, wanted, only_check);
        match self.log.change(work).await {
            Ok(made) => made.map(|topic| (topic, count)),
            Err(_) => Err(unavailable()),
        }
    }

    pub(super) async fn delete_topics(
        &self,
        request: DeleteTopicsRequest,
        _: &Received,
    ) -> DeleteTopicsResponse {
        let by_name = request
            .topic_names
            .into_iter()
            .map(|name| DeleteTopicState::default().with_name(Some(name)));
        let mut responses = Vec::new();
        for asked in request.topics.into_iter().chain(by_name) {
            let (name, id) = (asked.name.unwrap_or_default(), asked.topic_id);
            let found = topic(&self.log.topics(), &name, &id).cloned();
            let name = found
                .as_ref()
                .map_or_else(|_| name, |topic| topic_name(&topic.name));
            let deleted = match found {
                Ok(topic) => self.delete_topic(topic).await,
                Err(error) => Err(refusal(error, "there is no such topic")),
            };
            let (error_code, error_message) = parts(&deleted);
            responses.push(
                DeletableTopicResult::default()
                    .with_name(Some(name))
                    .with_topic_id(id)
                    .with_error_code(error_code)
                    .with_error_message(error_message),
            );
        }
        DeleteTopicsResponse::default().with_responses(responses)
    }

    async fn delete_topic(&self, topic: Arc<Topic>) -> Result<(), Refusal> {
        let work = move |changes: &mut Changes<'_>| {
            // Uses the topic's current state, because partitions may have been added since.
            match changes.topic(&topic.name).filter(|now| now.id == topic.id) {
                Some(topic) => changes.delete_topic(&topic).map(|()| true),
                None => Ok(false),
            }
        };
        match self.log.change(work).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(refusal(
                ResponseError::UnknownTopicOrPartition,
                "the topic has been deleted already",
            )),
            Err(_) => Err(unavailable()),
        }
    }

    pub(super) async fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
        _: &Received,
    ) -> CreatePartitionsResponse {
        let mut results = Vec::with_capacity(request.topics.len());
        for asked in request.topics {
            let name = asked.name.clone();
            let only_check = request.validate_only;
            let work = move |changes: &mut Changes<'_>| widen(changes, &asked, only_check);
            let widened = match self.log.change(work).await {
                Ok(widened) => widened,
                Err(_) => Err(unavailable()),
            };
            let (error_code, error_message) = parts(&widened);
            results.push(
                CreatePartitionsTopicResult::default()
                    .with_name(name)
                    .with_error_code(error_code)
                    .with_error_message(error_message),
            );
        }
        CreatePartitionsResponse::default().with_results(results)
    }

    pub(super) async fn delete_records(
        &self,
        request: DeleteRecordsRequest,
        _: &Received,
    ) -> DeleteRecordsResponse {
        let topics = self.log.topics();
        let mut of_topics = Vec::with_capacity(request.topics.len());
        for wanted in request.topics {
            let mut of_partitions = Vec::with_capacity(wanted.partitions.len());
            for one in wanted.partitions {
                let deleted = self
                    .delete_before(&topics, &wanted.name, one.partition_index, one.offset)
                    .await;
                of_partitions.push(
                    DeleteRecordsPartitionResult::default()
                        .with_partition_index(one.partition_index)
                        .with_low_watermark(deleted.unwrap_or(-1))
                        .with_error_code(code(deleted.map(drop))),
                );
            }
            of_topics.push(
                DeleteRecordsTopicResult::default()
                    .with_name(wanted.name)
                    .with_partitions(of_partitions),
            );
        }
        DeleteRecordsResponse::default().with_topics(of_topics)
    }

    /// Sets the first offset of a partition; -1 stands for its end. Returns the new first offset.
    async fn delete_before(
        &self,
        topics: &Topics,
        name: &str,
        index: i32,
        offset: i64,
    ) -> Result<i64, ResponseError> {
        let unknown = ResponseError::UnknownTopicOrPartition;
        let topic = topics.named(name).ok_or(unknown)?;
        let partition = topic.partition(index).ok_or(unknown)?;
        if !topic.settings.deletes {
            return Err(ResponseError::PolicyViolation);
        }
        let ends = partition.ends();
        let offset = if offset == -1 { ends.end } else { offset };
        if !(0..=ends.end).contains(&offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let number = partition.number;
        let start = self
            .log
            .change(move |changes| changes.set_start(number, offset))
            .await
            .map_err(|_| ResponseError::KafkaStorageError)?;
        start.ok_or(unknown)
    }
}

fn wanted(asked: CreatableTopic) -> Result<Wanted, Refusal> {
    check_name(&asked.name)?;
    let partitions = if asked.assignments.is_empty() {
        match asked.num_partitions {
            -1 => 1,
            count => usize::try_from(count).unwrap_or(0),
        }
    } else {
        let is_here = asked
            .assignments
            .iter()
            .all(|assignment| assignment.broker_ids == [NODE]);
        if !is_here || asked.num_partitions != -1 || asked.replication_factor != -1 {
            return Err(refusal(
                ResponseError::InvalidReplicaAssignment,
                "the only node is 1; with assignments, number and copies of partitions are -1",
            ));
        }
        asked.assignments.len()
    };
    if !(1..=MOST_PARTITIONS).contains(&partitions) {
        return Err(too_many_partitions());
    }
    if !matches!(asked.replication_factor, -1 | 1) {
        return Err(refusal(
            ResponseError::InvalidReplicationFactor,
            "there is one node, so a partition has one copy (1, or -1 for the default)",
        ));
    }
    let given = asked
        .configs
        .iter()
        .filter_map(|config| Some((config.name.as_str(), config.value.as_ref()?.as_str())));
    let settings = TopicSettings::from_given(given)
        .map_err(|error| refusal(ResponseError::InvalidConfig, error.to_string()))?;
    Ok(Wanted {
        name: asked.name.to_string(),
        partitions,
        settings,
    })
}

fn too_many_partitions() -> Refusal {
    refusal(
        ResponseError::InvalidPartitions,
        format!("a topic has 1 to {MOST_PARTITIONS} partitions, and all topics {MOST_IN_ALL}"),
    )
}

/// Checks that a name is valid in Kafka.
fn check_name(name: &str) -> Result<(), Refusal> {
    let is_taken =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    let fits = (1..=LONGEST_NAME).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.chars().all(is_taken);
    if fits {
        Ok(())
    } else {
        Err(refusal(
            ResponseError::InvalidTopicException,
            format!(
                "a topic's name has 1 to {LONGEST_NAME} letters (a-z, A-Z), digits, '.', '_' and '-'"
            ),
        ))
    }
}

fn create(
    changes: &mut Changes<'_>,
    wanted: Wanted,
    only_check: bool,
) -> Result<Result<Arc<Topic>, Refusal>, Failure> {
    if changes.topic(&wanted.name).is_some() {
        return Ok(Err(refusal(
            ResponseError::TopicAlreadyExists,
            "there is a topic of that name",
        )));
    }
    if changes.partitions() + wanted.partitions > MOST_IN_ALL {
        return Ok(Err(too_many_partitions()));
    }
    if only_check {
        return Ok(Ok(Arc::new(Topic {
            name: wanted.name.into(),
            id: Uuid::nil(),
            settings: wanted.settings,
            partitions: Vec::new(),
        })));
    }
    changes
        .create_topic(&wanted.name, wanted.partitions, wanted.settings)
        .map(Ok)
}

fn widen(
    changes: &mut Changes<'_>,
    asked: &CreatePartitionsTopic,
    only_check: bool,
) -> Result<Result<(), Refusal>, Failure> {
    let Some(topic) = changes.topic(&asked.name) else {
        return Ok(Err(refusal(
            ResponseError::UnknownTopicOrPartition,
            "there is no such topic",
        )));
    };
    let has = topic.partitions.len();
    let more = usize::try_from(asked.count)
        .unwrap_or(0)
        .saturating_sub(has);
    if more == 0 {
        return Ok(Err(refusal(
            ResponseError::InvalidPartitions,
            format!("the topic has {has} partitions; the new number is larger"),
        )));
    }
    if has + more > MOST_PARTITIONS || changes.partitions() + more > MOST_IN_ALL {
        return Ok(Err(too_many_partitions()));
    }
    let is_here = |assignments: &Vec<_>| {
        let on_node = |one: &kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment| one.broker_ids == [NODE];
        assignments.len() == more && assignments.iter().all(on_node)
    };
    if !asked.assignments.as_ref().is_none_or(is_here) {
        return Ok(Err(refusal(
            ResponseError::InvalidReplicaAssignment,
            "the only node is 1",
        )));
    }
    if !only_check {
        changes.add_partitions(&topic, more)?;
    }
    Ok(Ok(()))
}

fn settings_of(topic: &Topic) -> Vec<CreatableTopicConfigs> {
    let described = KNOWN.iter().map(|known| {
        let given = topic.settings.value(known.name);
        CreatableTopicConfigs::default()
            .with_name(text(known.name))
            .with_value(Some(text(given.unwrap_or(known.default))))
            .with_config_source(if given.is_some() {
                OF_TOPIC
            } else {
                OF_DEFAULT
            })
    });
    described.collect()
}
