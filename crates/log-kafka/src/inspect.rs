//! What a cluster holds, for somebody who looks whether it is fit: topics and their settings. It makes and changes nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    producer::FutureProducer,
};

use tandem_event_path::log::LogError;
use tokio_util::sync::CancellationToken;

use super::{certificate, link::Link, no_client, reason::Cause, settings::KafkaSettings};

/// How long the cluster may take for each of the questions.
const LIMIT: Duration = Duration::from_secs(6);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Brokers in the cluster.
    pub brokers: usize,
    /// Those of the topics asked for that are there.
    pub topics: BTreeMap<String, TopicState>,
}

/// A topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Its partitions.
    pub partitions: usize,
    /// Copies of its first partition.
    pub replicas: usize,
    /// `cleanup.policy`, where it may be read.
    pub cleanup_policy: Option<String>,
    /// `retention.ms`, where it may be read.
    pub retention_ms: Option<String>,
    /// `compression.type`, where it may be read.
    pub compression_type: Option<String>,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A property that librdkafka does not know or take.
    #[error(transparent)]
    Client(#[from] LogError),
    /// Kafka cannot be used, and why, as a sentence.
    #[error("{0}")]
    Refused(String),
    /// It does not answer.
    #[error("Kafka does not answer within {} s: {reason}", LIMIT.as_secs())]
    Away {
        /// What the client says.
        reason: String,
    },
}

/// Looks at a cluster and at these topics.
///
/// # Errors
/// When it does not answer, within 12 s, or refuses the login.
pub async fn inspect(
    settings: &KafkaSettings,
    topics: &[&str],
) -> Result<Inspection, InspectError> {
    let link = Link::default();
    let config = settings.client_config();
    let wrong = || no_client("a look at the cluster");
    let admin: AdminClient<Link> = config.create_with_context(link.clone()).map_err(wrong())?;
    // An administrative client never looks at what is said of its link; a producer does.
    let listener: FutureProducer<Link> =
        config.create_with_context(link.clone()).map_err(wrong())?;
    let admin = Arc::new(admin);
    let told = |error: String| match link.reason() {
        Some(mut reason) => {
            if reason.cause == Cause::Certificate {
                let stop = CancellationToken::new();
                reason.cause = certificate::cause(settings, &stop).unwrap_or(reason.cause);
            }
            InspectError::Refused(reason.to_string())
        }
        None => InspectError::Away { reason: error },
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
    // The end of a client blocks its thread.
    tokio::task::spawn_blocking(move || drop((admin, listener)));
    Ok(found)
}
