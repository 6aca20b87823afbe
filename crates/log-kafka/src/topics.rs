//! Creates missing topics. Existing topics are checked, and deviations are logged, but never changed.

use std::{collections::HashMap, sync::Arc};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{
    REQUEST_LIMIT,
    link::Link,
    settings::{KafkaSettings, READABLE_COMPRESSION},
};

/// A topic that a service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: &'static str,
    /// Whether only the newest message of each key is kept.
    pub compacted: bool,
}

impl Topic {
    /// A topic that keeps every event, as part of the event store.
    #[must_use]
    pub const fn log(name: &'static str) -> Self {
        Self {
            name,
            compacted: false,
        }
    }

    /// The number of partitions for a new topic.
    fn partitions(self, settings: &KafkaSettings) -> i32 {
        if self.compacted {
            1
        } else {
            settings.partitions
        }
    }

    /// A topic that keeps the newest message of each key, in one partition. It has few messages, every reader reads all
    /// of it, and messages that are published together go out in one request.
    #[must_use]
    pub const fn compacted(name: &'static str) -> Self {
        Self {
            name,
            compacted: true,
        }
    }
}

/// The existing topics, with their numbers of partitions.
type Existing = HashMap<String, usize>;

/// Creates missing topics, and warns of topics that differ from the settings.
///
/// The user need not have the right to create topics that exist: a refusal counts only for a missing topic.
///
/// # Errors
/// If Kafka does not answer, or refuses to create a missing topic.
pub async fn ensure(
    admin: &Arc<AdminClient<Link>>,
    settings: &KafkaSettings,
    topics: &[Topic],
) -> Result<(), KafkaError> {
    if topics.is_empty() {
        return Ok(());
    }
    let retention = settings.retention_ms.to_string();
    let names: Vec<String> = topics
        .iter()
        .map(|topic| settings.physical(topic.name).into_owned())
        .collect();
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&names)
        .map(|(topic, name)| {
            let new = NewTopic::new(
                name,
                topic.partitions(settings),
                TopicReplication::Fixed(settings.replication),
            );
            if topic.compacted {
                // Replaced messages are gone within a day. A tombstone stays for a month, for readers that were down.
                new.set("cleanup.policy", "compact")
                    .set("max.compaction.lag.ms", "86400000")
                    .set("delete.retention.ms", "2592000000")
            } else {
                new.set("cleanup.policy", "delete")
                    .set("retention.ms", &retention)
            }
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(REQUEST_LIMIT))
        .operation_timeout(Some(REQUEST_LIMIT));
    let mut not_made = Vec::new();
    for result in admin.create_topics(&wanted, &options).await? {
        match result {
            Ok(topic) => tracing::info!(topic, "topic made"),
            Err((topic, code)) => not_made.push((topic, code)),
        }
    }
    if not_made.is_empty() {
        return Ok(());
    }
    let existing = existing(admin).await?;
    for (topic, code) in not_made {
        let place = names.iter().position(|name| *name == topic);
        let known = place.and_then(|place| topics.get(place));
        match (known, is_there(code, existing.get(&topic))) {
            (Some(known), true) => {
                let partitions = existing.get(&topic).copied();
                check(admin, settings, *known, partitions, &options).await;
            }
            _ => {
                tracing::error!(topic, %code, "the topic is missing and could not be made");
                return Err(KafkaError::AdminOp(code));
            }
        }
    }
    Ok(())
}

/// Whether a topic that was not created exists, according to the answer and to the number of its partitions.
fn is_there(code: RDKafkaErrorCode, partitions: Option<&usize>) -> bool {
    code == RDKafkaErrorCode::TopicAlreadyExists
        || partitions.is_some_and(|partitions| *partitions > 0)
}

/// All topics that this user may see. A request for a single topic by name could create it.
async fn existing(admin: &Arc<AdminClient<Link>>) -> Result<Existing, KafkaError> {
    let admin = Arc::clone(admin);
    // This call of librdkafka blocks its thread.
    let asked =
        tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, REQUEST_LIMIT));
    let Ok(metadata) = asked.await else {
        return Err(KafkaError::Canceled);
    };
    Ok(metadata?
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
        .collect())
}

/// Warns if an existing topic would lose events, or differs from the settings in the number of partitions.
async fn check(
    admin: &AdminClient<Link>,
    settings: &KafkaSettings,
    topic: Topic,
    partitions: Option<usize>,
    options: &AdminOptions,
) {
    let wanted = usize::try_from(topic.partitions(settings)).unwrap_or_default();
    if let Some(partitions) = partitions.filter(|partitions| *partitions != wanted) {
        tracing::warn!(
            topic = topic.name,
            partitions,
            wanted,
            "the topic has another number of partitions than it would be made with; it is used as it is"
        );
    }
    let name = settings.physical(topic.name);
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(&name)], options)
        .await;
    let Ok(resources) = described else {
        tracing::warn!(topic = topic.name, "the topic's settings could not be read");
        return;
    };
    for resource in resources {
        let Ok(resource) = resource else {
            tracing::warn!(topic = topic.name, "the topic's settings may not be read");
            continue;
        };
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
        let compression = value("compression.type").unwrap_or_default();
        if !compression.is_empty() && !READABLE_COMPRESSION.contains(&compression.as_str()) {
            tracing::warn!(
                topic = topic.name,
                compression,
                readable = ?READABLE_COMPRESSION,
                "the topic's compression.type is one that cannot be read here"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_to_make_a_topic_counts_only_when_it_is_missing() {
        let refused = RDKafkaErrorCode::TopicAuthorizationFailed;
        assert!(is_there(refused, Some(&6)));
        assert!(!is_there(refused, None));
        assert!(!is_there(refused, Some(&0)));
        assert!(is_there(RDKafkaErrorCode::TopicAlreadyExists, None));
    }
}
