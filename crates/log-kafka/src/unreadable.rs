//! What cannot be read although Kafka answers: batches that the client does not understand, topics that its user may
//! not read.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tandem_event_path::log::{ReadErrors, Told};
use tandem_runtime::clock::Clock;

/// Records a reader's error, unless it is about its connections, which [`crate::link`] reports.
///
/// The client does not say which partition it cannot read. `partitions` are those that were not read to their end.
pub(crate) fn note<'a>(
    all: impl IntoIterator<Item = &'a ReadErrors>,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    error: &KafkaError,
) {
    let Some(told) = error.rdkafka_error_code().and_then(told) else {
        return;
    };
    let reason = sentence(topic, partitions, error);
    for errors in all {
        errors.failed(reason.clone(), told);
    }
}

fn sentence(topic: &str, partitions: impl IntoIterator<Item = i32>, error: &KafkaError) -> String {
    let named: Vec<String> = partitions.into_iter().map(|it| it.to_string()).collect();
    let place = match named.as_slice() {
        [] => topic.to_owned(),
        [one] => format!("partition {one} of {topic}"),
        several => format!(
            "one or more of the partitions {} of {topic}",
            several.join(", ")
        ),
    };
    format!("{place} cannot be read: {error}")
}

/// How often librdkafka reports such an error while it continues; `None` if the error is not about the topic's content.
fn told(code: Code) -> Option<Told> {
    match code {
        Code::AllBrokersDown
        | Code::Authentication
        | Code::BrokerNotAvailable
        | Code::BrokerTransportFailure
        | Code::NetworkException
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::Resolve
        | Code::SSL
        | Code::SaslAuthenticationFailed => None,
        Code::GroupAuthorizationFailed
        | Code::TopicAuthorizationFailed
        | Code::UnknownPartition
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition => Some(Told::Once),
        _ => Some(Told::EachTime),
    }
}

/// The read errors of a connection's tails, by topic. They outlive a tail, which ends when it cannot continue. Clones
/// share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tails(Arc<Mutex<BTreeMap<&'static str, ReadErrors>>>);

impl Tails {
    /// The errors of the tails of one topic.
    pub(crate) fn of(&self, topic: &'static str, clock: &Clock) -> ReadErrors {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = known.entry(topic).or_insert_with(|| ReadErrors::new(clock));
        errors.clone()
    }

    /// The reasons of lasting errors.
    pub(crate) fn lasting(&self) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(ReadErrors::lasting).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(11);

    #[test]
    fn a_reason_names_the_topic_and_the_partitions_that_it_may_be() {
        let error = KafkaError::MessageConsumption(Code::NotImplemented);
        let reason = sentence("orders.order.change", [3], &error);
        assert!(reason.starts_with("partition 3 of orders.order.change cannot be read: "));
        assert!(reason.contains("Not implemented"), "{reason}");
        let reason = sentence("orders.order.change", [0, 3], &error);
        assert!(reason.starts_with("one or more of the partitions 0, 3 of orders.order.change "));
        let reason = sentence("orders.order.change", [], &error);
        assert!(reason.starts_with("orders.order.change cannot be read: "));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_a_connection_is_none_of_what_is_in_the_topic() {
        let (tails, clock) = (Tails::default(), Clock::default());
        let errors = tails.of("orders.order.change", &clock);
        let down = KafkaError::MessageConsumption(Code::AllBrokersDown);
        for _ in 0..3 {
            note([&errors], "orders.order.change", [0], &down);
            clock.sleep(LONG / 2).await;
        }
        assert_eq!(tails.lasting(), Vec::<String>::new());
        let refused = KafkaError::MessageConsumption(Code::TopicAuthorizationFailed);
        note([&errors], "orders.order.change", [0], &refused);
        clock.sleep(LONG).await;
        assert_eq!(tails.lasting().len(), 1);
    }
}
