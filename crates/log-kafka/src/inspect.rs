//! Inspects a cluster, for a check whether it is suitable: topics and their settings. It creates and changes nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};

use tandem_event_path::log::LogError;
use tokio_util::sync::CancellationToken;

use super::{
    certificate, link::Link, no_client, producer::Producer, reason::Cause, settings::KafkaSettings,
};

/// The time limit of each request to the cluster.
const LIMIT: Duration = Duration::from_secs(6);

/// The result of an inspection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The number of brokers in the cluster.
    pub brokers: usize,
    /// Those of the requested topics that exist.
    pub topics: BTreeMap<String, TopicState>,
}

/// The current state of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// The number of partitions.
    pub partitions: usize,
    /// The number of replicas of its first partition.
    pub replicas: usize,
    /// `cleanup.policy`, if the user may read it.
    pub cleanup_policy: Option<String>,
    /// `retention.ms`, if the user may read it.
    pub retention_ms: Option<String>,
    /// `compression.type`, if the user may read it.
    pub compression_type: Option<String>,
}

/// Why the inspection failed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// librdkafka does not know a property, or refuses its value.
    #[error(transparent)]
    Client(#[from] LogError),
    /// Kafka cannot be used; the sentence says why.
    #[error("{0}")]
    Refused(String),
    /// Kafka does not answer.
    #[error("Kafka does not answer within {} s: {reason}", LIMIT.as_secs())]
    Unavailable {
        /// The client's error.
        reason: String,
    },
}

/// Inspects a cluster and these topics.
///
/// # Errors
/// If it does not answer within 12 s, or refuses the login.
pub async fn inspect(
    settings: &KafkaSettings,
    topics: &[&str],
) -> Result<Inspection, InspectError> {
    let link = Link::default();
    let config = settings.client_config();
    let wrong = || no_client("a look at the cluster");
    let admin: AdminClient<Link> = config.create_with_context(link.clone()).map_err(wrong())?;
    // An administrative client never polls for the errors of its connection, but a producer does.
    let listener = Producer::new(&config, link.clone()).map_err(wrong())?;
    let admin = Arc::new(admin);
    let told = |error: String| match link.reason() {
        Some(mut reason) => {
            if reason.cause == Cause::Certificate {
                let stop = CancellationToken::new();
                reason.cause = certificate::cause(settings, &stop).unwrap_or(reason.cause);
            }
            InspectError::Refused(reason.to_string())
        }
        None => InspectError::Unavailable { reason: error },
    };

    let asked = Arc::clone(&admin);
    let metadata =
        tokio::task::spawn_blocking(move || asked.inner().fetch_metadata(None, LIMIT)).await;
    let metadata = match metadata {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(error)) => return Err(told(error.to_string())),
        Err(_) => return Err(told("the question was broken off".to_owned())),
    };
    let mut found = Inspection {
        brokers: metadata.brokers().len(),
        topics: metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none() && topics.contains(&topic.name()))
            .map(|topic| {
                let state = TopicState {
                    partitions: topic.partitions().len(),
                    replicas: topic
                        .partitions()
                        .first()
                        .map_or(0, |first| first.replicas().len()),
                    ..TopicState::default()
                };
                (topic.name().to_owned(), state)
            })
            .collect(),
    };
    let options = AdminOptions::new()
        .request_timeout(Some(LIMIT))
        .operation_timeout(Some(LIMIT));
    let names: Vec<String> = found.topics.keys().cloned().collect();
    let resources: Vec<ResourceSpecifier<'_>> = names
        .iter()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    if !resources.is_empty()
        && let Ok(described) = admin.describe_configs(&resources, &options).await
    {
        for (name, resource) in names.iter().zip(described) {
            let (Some(state), Ok(resource)) = (found.topics.get_mut(name), resource) else {
                continue;
            };
            let value = |key: &str| resource.get(key).and_then(|entry| entry.value.clone());
            state.cleanup_policy = value("cleanup.policy");
            state.retention_ms = value("retention.ms");
            state.compression_type = value("compression.type");
        }
    }
    // Dropping a client blocks its thread.
    tokio::task::spawn_blocking(move || drop((admin, listener)));
    Ok(found)
}
