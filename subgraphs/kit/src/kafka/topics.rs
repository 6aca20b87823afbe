//! Topics: made when missing, checked and complained about when they are not what they should be, never changed.

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{REQUEST_LIMIT, settings::KafkaSettings};

/// A topic that a service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// Whether only the newest message of a key is kept.
    pub compacted: bool,
}

impl Topic {
    /// A topic that keeps every event: part of the event store.
    #[must_use]
    pub const fn log(name: &'static str) -> Self {
        Self {
            name,
            compacted: false,
        }
    }

    /// A topic that keeps the newest message of each key.
    #[must_use]
    pub const fn compacted(name: &'static str) -> Self {
        Self {
            name,
            compacted: true,
        }
    }
}

/// Makes the topics that are missing and warns of those that differ from the settings.
///
/// # Errors
/// When Kafka does not answer or refuses to make a topic.
pub async fn ensure(
    admin: &AdminClient<DefaultClientContext>,
    settings: &KafkaSettings,
    topics: &[Topic],
) -> Result<(), KafkaError> {
    let retention = settings.retention_ms.to_string();
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let new = NewTopic::new(
                topic.name,
                settings.partitions,
                TopicReplication::Fixed(settings.replication),
            );
            if topic.compacted {
                new.set("cleanup.policy", "compact")
            } else {
                new.set("cleanup.policy", "delete")
                    .set("retention.ms", &retention)
            }
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(REQUEST_LIMIT))
        .operation_timeout(Some(REQUEST_LIMIT));
    for result in admin.create_topics(&wanted, &options).await? {
        match result {
            Ok(topic) => tracing::info!(topic, partitions = settings.partitions, "topic made"),
            Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => {
                if let Some(known) = topics.iter().find(|known| known.name == topic) {
                    check(admin, settings, *known, &options).await;
                }
            }
            Err((topic, code)) => {
                tracing::error!(topic, %code, "the topic could not be made");
                return Err(KafkaError::AdminOp(code));
            }
        }
    }
    Ok(())
}

/// Warns when an existing topic would lose events or has another number of partitions than the settings say.
async fn check(
    admin: &AdminClient<DefaultClientContext>,
    settings: &KafkaSettings,
    topic: Topic,
    options: &AdminOptions,
) {
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic.name)], options)
        .await;
    let Ok(resources) = described else {
        tracing::warn!(topic = topic.name, "the topic's settings could not be read");
        return;
    };
    for resource in resources.into_iter().flatten() {
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
        let policy = value("cleanup.policy").unwrap_or_default();
        if topic.compacted != policy.contains("compact") && !policy.is_empty() {
            tracing::warn!(
                topic = topic.name,
                policy,
                wanted = if topic.compacted { "compact" } else { "delete" },
                "the topic's cleanup.policy is not what it should be"
            );
        }
        let retention = value("retention.ms").unwrap_or_default();
        if !topic.compacted
            && !retention.is_empty()
            && retention != settings.retention_ms.to_string()
        {
            tracing::warn!(
                topic = topic.name,
                retention,
                wanted = settings.retention_ms,
                "the topic's retention.ms is not what it should be: events older than that are lost to a rebuild"
            );
        }
    }
}
