//! Examines Kafka: whether it can be reached, its topics, and whether the producers' clocks agree with this machine's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tandem_assembly::admin::dead_letters::dead_letter_topic;
use tandem_event_path::{
    held_back::readable_ends,
    log::{Attention, Log, LogError, Offsets, records_at},
};
use tandem_log_kafka::{
    connection::Kafka,
    inspect::{self, InspectError, Inspection, TopicState},
    settings::{KafkaSettings, READABLE_COMPRESSION},
};
use tandem_model::message::Message;
use tandem_runtime::shutdown::Shutdown;

use super::{DoctorSettings, Finding};
use crate::running::Found;

const CUSTOMERS: &str = tandem_accounts::domain::event::TOPIC;
const KEYS: &str = tandem_accounts::domain::event::KEY_TOPIC;
const ORDERS: &str = tandem_orders::domain::event::TOPIC;

/// Time limit for reading the newest events of a topic. Longer than a tail retries a topic that it cannot read.
const READ_LIMIT: Duration = Duration::from_secs(8);
/// How long to wait for an open transaction to end. Most end within moments.
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// If an event is more than this many seconds ahead of this machine's clock, one of the two clocks is wrong.
const AHEAD: i64 = 5;

pub(super) async fn examine(doctor: &DoctorSettings, found: &Found) -> Vec<Finding> {
    if found.alive().is_none() && !doctor.kafka.is_given() {
        return vec![Finding::good(
            "Kafka",
            "the embedded broker starts with `tandem up`; --kafka-brokers names another",
        )];
    }
    let settings = match doctor.kafka.settings(found, &doctor.place).await {
        Ok(settings) => settings,
        Err(error) => {
            let told = error.to_string();
            let (what, mend) = told.split_once("; ").unwrap_or((&told, "start it"));
            return vec![Finding::bad("Kafka", what, mend)];
        }
    };
    let dead = [CUSTOMERS, ORDERS].map(dead_letter_topic);
    let names = [CUSTOMERS, ORDERS, KEYS, &dead[0], &dead[1]].map(|name| settings.physical(name));
    let names = names.each_ref().map(AsRef::as_ref);
    let inspection = match inspect::inspect(&settings, &names).await {
        Ok(inspection) => inspection,
        Err(error) => {
            let mend = match &error {
                InspectError::Client(_) => "see --kafka-property (TANDEM_KAFKA_PROPERTIES)",
                InspectError::Refused(_) => {
                    "see --kafka-property: security.protocol, sasl.* and ssl.* have to fit the cluster"
                }
                InspectError::Unavailable { .. } => {
                    "the port is open, but no Kafka answers as it is asked: security.protocol has to fit the listener"
                }
            };
            return vec![Finding::bad("Kafka", error.to_string(), mend)];
        }
    };
    let mut findings = vec![Finding::good(
        "Kafka",
        format!(
            "{} answers; {} broker{}",
            settings.brokers,
            inspection.brokers,
            if inspection.brokers == 1 { "" } else { "s" }
        ),
    )];
    let keys = settings.physical(KEYS);
    for name in names {
        let is_running = found.alive().is_some();
        findings.push(topic(name, name == keys, &inspection, is_running));
    }
    let there = |topic: &&str| {
        inspection
            .topics
            .contains_key(settings.physical(topic).as_ref())
    };
    let there: Vec<&'static str> = [CUSTOMERS, ORDERS, KEYS]
        .into_iter()
        .filter(there)
        .collect();
    findings.extend(newest_events(&settings, &there).await);
    findings.extend(held_back(&settings, there).await);
    findings
}

/// The records of these topics that nobody can read, because a transaction before them is open.
async fn held_back(settings: &KafkaSettings, topics: Vec<&str>) -> Vec<Finding> {
    let shutdown = Shutdown::new();
    let Ok(kafka) = Kafka::connect(settings.clone(), Vec::new(), &shutdown) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for topic in topics {
        let looked = readable_ends(&kafka, topic, OPEN_LIMIT, shutdown.clock(), |_| ());
        if let Ok((_, parts)) = looked.await
            && !parts.is_empty()
        {
            findings.push(Finding::bad(
                "topic",
                format!("{topic} is held back, {parts}: a transaction of another producer is open there, and nobody can read what lies behind it"),
                "end it, or wait until Kafka gives it up, after its producer's transaction.timeout.ms",
            ));
        }
    }
    shutdown.request("the topics are looked at");
    findings
}

fn topic(name: &str, compacted: bool, inspection: &Inspection, runs: bool) -> Finding {
    let subject = "topic";
    let Some(state) = inspection.topics.get(name) else {
        return if runs {
            Finding::bad(
                subject,
                format!("{name} is not there, or this user may not see it"),
                "let the services' user make topics (CREATE on the cluster) or describe them, or make it as docs/production.md says",
            )
        } else {
            Finding::doubtful(
                subject,
                format!("{name} is not there yet, or this user may not see it"),
                "the services make it when they start, if their user may (CREATE on the cluster)",
            )
        };
    };
    if let Some(finding) = unfit(name, state, compacted) {
        return finding;
    }
    let copies = format!(
        "{name}: {} partition{}, {} cop{}",
        state.partitions,
        if state.partitions == 1 { "" } else { "s" },
        state.replicas,
        if state.replicas == 1 { "y" } else { "ies" }
    );
    match (&state.cleanup_policy, &state.retention_ms) {
        (Some(policy), _) if compacted => Finding::good(subject, format!("{copies}, {policy}")),
        (Some(_), Some(_)) => Finding::good(subject, format!("{copies}, kept for ever")),
        _ => Finding::doubtful(
            subject,
            format!("{copies}; its retention may not be read"),
            "allow DESCRIBE_CONFIGS on it to see whether it keeps every event",
        ),
    }
}

/// Settings of a topic that would lose events or keep them from being read.
fn unfit(name: &str, state: &TopicState, compacted: bool) -> Option<Finding> {
    let subject = "topic";
    if let Some(policy) = &state.cleanup_policy {
        if compacted && !policy.contains("compact") {
            return Some(Finding::bad(
                subject,
                format!("{name} has cleanup.policy {policy}: keys of customers are lost with time"),
                "set cleanup.policy=compact on it",
            ));
        }
        if !compacted && policy.contains("compact") {
            return Some(Finding::bad(
                subject,
                format!(
                    "{name} has cleanup.policy {policy}: older events of a customer or order are lost"
                ),
                "set cleanup.policy=delete and retention.ms=-1 on it",
            ));
        }
    }
    if let Some(compression) = &state.compression_type
        && !READABLE_COMPRESSION.contains(&compression.as_str())
    {
        return Some(Finding::bad(
            subject,
            format!(
                "{name} has compression.type {compression}, which this version cannot read: everything behind such a batch waits"
            ),
            format!(
                "set compression.type=producer on it, or one of {}",
                READABLE_COMPRESSION.join(", ")
            ),
        ));
    }
    let retention = state.retention_ms.as_deref().filter(|_| !compacted)?;
    (retention != "-1" && retention.parse::<i64>().is_ok()).then(|| {
        Finding::bad(
            subject,
            format!("{name} keeps events for {retention} ms only: older ones are lost to a rebuild and to the audit"),
            "set retention.ms=-1 on it",
        )
    })
}

/// Whether the newest events of these topics can be read. From the newest of all it judges the clock of its producer.
async fn newest_events(settings: &KafkaSettings, topics: &[&'static str]) -> Vec<Finding> {
    let shutdown = Shutdown::new();
    let Ok(kafka) = Kafka::connect(settings.clone(), Vec::new(), &shutdown) else {
        return Vec::new();
    };
    let read = topics.iter().map(|topic| newest_of(&kafka, topic));
    let read = futures::future::join_all(read).await;
    shutdown.request("the newest events are read");
    let mut findings = Vec::new();
    let mut newest: Option<DateTime<Utc>> = None;
    for messages in read {
        match messages {
            Ok(messages) => newest = newest.max(messages.iter().filter_map(time).max()),
            Err(error @ LogError::Unreadable(_)) => findings.push(Finding::bad(
                "topic",
                format!("{error}: everything behind it waits"),
                "docs/runbooks.md (ReaderCannotRead) says what the reasons mean",
            )),
            // An unreachable Kafka was already reported, or the services will report it.
            Err(_) => {}
        }
    }
    findings.extend(newest.map(clock_of));
    findings
}

#[expect(clippy::disallowed_methods, reason = "it examines the machine's clock")]
fn clock_of(newest: DateTime<Utc>) -> Finding {
    let ahead = (newest - Utc::now()).num_seconds();
    if ahead > AHEAD {
        Finding::bad(
            "clock",
            format!("the newest event is dated {ahead} s ahead of this machine's clock"),
            "set the clocks of all machines by NTP",
        )
    } else {
        Finding::good("clock", "no event is dated ahead of this machine's clock")
    }
}

/// The time at which an event was made.
fn time(event: &Message) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(event.header("ce_time")?).ok()?;
    Some(time.with_timezone(&Utc))
}

/// The last record of each partition of a topic that has records.
#[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
async fn newest_of(kafka: &Kafka, topic: &'static str) -> Result<Vec<Message>, LogError> {
    let silent = |_| LogError::Unavailable(format!("{topic} was silent"));
    let read = tokio::time::timeout(READ_LIMIT, read_newest(kafka, topic)).await;
    read.map_err(silent)?
}

async fn read_newest(kafka: &Kafka, topic: &'static str) -> Result<Vec<Message>, LogError> {
    let ends = kafka.topic(topic).await?.ends;
    let lasts: Offsets = ends
        .iter()
        .filter(|(_, (low, high))| low < high)
        .map(|(partition, (_, high))| (*partition, high - 1))
        .collect();
    if lasts.is_empty() {
        return Ok(Vec::new());
    }
    let tail = kafka.tail(topic, &lasts, Attention::Prompt)?;
    let found = records_at(tail.as_ref(), &lasts).await?;
    // A partition whose last offset holds no record has none here.
    Ok(found.into_values().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn inspection(name: &str, policy: &str, retention: &str) -> Inspection {
        let state = TopicState {
            partitions: 6,
            replicas: 3,
            cleanup_policy: Some(policy.to_owned()),
            retention_ms: Some(retention.to_owned()),
            compression_type: Some("producer".to_owned()),
        };
        Inspection {
            brokers: 3,
            topics: [(name.to_owned(), state)].into(),
        }
    }

    #[test]
    fn a_topic_that_would_lose_events_is_to_be_mended() {
        for (name, policy, retention, verdict) in [
            (CUSTOMERS, "delete", "-1", Verdict::Good),
            (CUSTOMERS, "delete", "604800000", Verdict::Bad),
            (CUSTOMERS, "compact", "-1", Verdict::Bad),
            (ORDERS, "compact,delete", "-1", Verdict::Bad),
            (KEYS, "compact", "604800000", Verdict::Good),
            (KEYS, "delete", "-1", Verdict::Bad),
        ] {
            let finding = topic(
                name,
                name == KEYS,
                &inspection(name, policy, retention),
                true,
            );
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.mend.is_some(), verdict != Verdict::Good);
        }
    }

    #[test]
    fn a_topic_whose_records_cannot_be_read_is_to_be_mended() {
        for (compression, verdict) in [
            ("uncompressed", Verdict::Good),
            ("zstd", Verdict::Good),
            ("brotli", Verdict::Bad),
        ] {
            let mut inspection = inspection(ORDERS, "delete", "-1");
            for state in inspection.topics.values_mut() {
                state.compression_type = Some(compression.to_owned());
            }
            let finding = topic(ORDERS, false, &inspection, true);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
        }
    }

    #[test]
    fn a_topic_that_is_missing_is_bad_only_where_the_system_runs() {
        let nothing = Inspection::default();
        assert_eq!(topic(ORDERS, false, &nothing, true).verdict, Verdict::Bad);
        assert_eq!(
            topic(ORDERS, false, &nothing, false).verdict,
            Verdict::Doubtful
        );
    }
}
