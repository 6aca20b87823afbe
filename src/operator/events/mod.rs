//! `tandem events tail`: shows the records on the topics, decoded, and decrypted where the sealing key is available.
//!
//! - [`trust`]: what the topic of keys says: whose signatures count, and which data keys exist.
//! - [`shown`]: how a record is shown, as a line of JSON or for a person.
//!
//! It reads the topics itself, in no consumer group, so it disturbs no reader and needs no service.

mod shown;
mod trust;

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use tandem_event_path::{
    log::{Arrival, Attention, Log, LogError, Offsets},
    signing::TrustedSigner,
};
use tandem_log_kafka::connection::Kafka;
use tandem_model::message::Message;
use tandem_runtime::{duration::parse_duration, shutdown::Shutdown};

use super::reach::{KafkaPlace, Place};
use crate::terminal::{has_colours, json, say_aside, tell};
use shown::Shown;
use trust::Trust;

/// How long the log may deliver nothing before its end is reached.
const SILENCE: Duration = Duration::from_secs(20);

/// A topic, and the topic that its records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    topic: &'static str,
    /// The topic whose records this one copies. For a topic without dead letters, the topic itself.
    of: &'static str,
}

const CUSTOMERS: &str = tandem_accounts::domain::event::TOPIC;
const KEYS: &str = tandem_accounts::domain::event::KEY_TOPIC;
const ORDERS: &str = tandem_orders::domain::event::TOPIC;

const fn source(topic: &'static str, of: &'static str) -> Source {
    Source { topic, of }
}

/// Every topic that a system writes.
const SOURCES: [Source; 5] = [
    source(CUSTOMERS, CUSTOMERS),
    source(KEYS, KEYS),
    source(ORDERS, ORDERS),
    source("accounts.customer.change.DLT", CUSTOMERS),
    source("orders.order.change.DLT", ORDERS),
];

/// What to do with events.
#[derive(Args, Clone, Debug)]
pub(crate) struct EventsSettings {
    #[command(subcommand)]
    what: What,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    kafka: KafkaPlace,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Show what flows on the topics, until Ctrl-C: in colour on a terminal, as lines of JSON in a pipe.
    Tail(TailSettings),
}

#[derive(Args, Clone, Debug)]
struct TailSettings {
    /// Only this topic; may be given many times. Without it all: events, data keys, dead letters.
    #[arg(
        long = "topic",
        value_name = "TOPIC",
        value_parser = PossibleValuesParser::new(SOURCES.map(|source| source.topic))
    )]
    topics: Vec<String>,

    /// Only records with this key: the id of a customer or an order; may be given many times.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,

    /// What was published since then, too: a time (2026-11-29T17:00:00Z), how long ago (500ms, 10s, 5m, 24h), or `beginning`. Without it
    /// only what comes from now on; with --until-end everything.
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,

    /// Lines of JSON, on a terminal, too.
    #[arg(long)]
    json: bool,

    /// Leave out the bodies.
    #[arg(long)]
    short: bool,

    /// End after so many records.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,

    /// End where the topics ended when the command began.
    #[arg(long)]
    until_end: bool,

    /// A verifying key that is trusted beside those that accounts has published and those of the data directory, such as orders=BASE64;
    /// commas between several.
    #[arg(
        long,
        env = "TANDEM_TRUSTED_SIGNERS",
        value_name = "SERVICE=BASE64",
        value_delimiter = ','
    )]
    trusted_signers: Vec<TrustedSigner>,
}

/// The point from which to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Beginning,
    Time(DateTime<Utc>),
    Ago(Duration),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if text == "beginning" {
        return Ok(Since::Beginning);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Since::Time(time.with_timezone(&Utc)));
    }
    parse_duration(text).map(Since::Ago).map_err(|_| {
        "write a time such as 2026-11-29T17:00:00Z, how long ago (500ms, 10s, 5m or 24h), or beginning".to_owned()
    })
}

/// A time in the form that Kafka is asked for. Not negative: nothing was published before 1970, and Kafka gives
/// negative numbers another meaning.
fn milliseconds(time: DateTime<Utc>) -> i64 {
    time.timestamp_millis().max(0)
}

/// Shows records until Ctrl-C.
pub(crate) async fn run(settings: EventsSettings) -> anyhow::Result<()> {
    let What::Tail(tail) = &settings.what;
    let found = settings.place.found();
    let shutdown = Shutdown::new();
    let connection = settings.kafka.settings(&found, &settings.place).await?;
    let kafka = Kafka::connect(connection, Vec::new(), &shutdown)?;
    let trust = Trust::learn(&kafka, &settings.place, &tail.trusted_signers).await?;
    let tailing = Tailing {
        settings: tail,
        kafka: &kafka,
        trust,
        left: HashSet::new(),
        shown: 0,
    };
    let ended = tokio::select! {
        ended = tailing.run() => ended,
        pressed = tokio::signal::ctrl_c() => pressed.context("Ctrl-C cannot be heard"),
    };
    shutdown.request("everything that was asked for is shown");
    ended
}

/// The records that arrive, each with its topic.
type Arrivals = SelectAll<BoxStream<'static, (Source, Result<Arrival, LogError>)>>;

struct Tailing<'a> {
    settings: &'a TailSettings,
    kafka: &'a Kafka,
    trust: Trust,
    /// Partitions whose end has not been reached, each with the offset of its end. Empty unless the command stops at
    /// the end.
    left: HashSet<(&'static str, i32, i64)>,
    shown: u64,
}

impl Tailing<'_> {
    #[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
    async fn run(mut self) -> anyhow::Result<()> {
        let mut arrivals = self.open().await?;
        let until_end = self.settings.until_end;
        if !until_end {
            say_aside("tandem: showing what comes; Ctrl-C ends it");
        }
        while !(until_end && self.left.is_empty()) && self.settings.limit != Some(self.shown) {
            let next = arrivals.next();
            let arrived = if until_end {
                let arrived = tokio::time::timeout(SILENCE, next).await;
                arrived.context("the log went silent before its end")?
            } else {
                next.await
            };
            let Some((source, arrived)) = arrived else {
                return Ok(());
            };
            match arrived? {
                Arrival::End(partition) => self
                    .left
                    .retain(|(topic, of, _)| (*topic, *of) != (source.topic, partition)),
                Arrival::Record(message) => {
                    if !self.take(source, message).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins to read the requested topics.
    #[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
    async fn open(&mut self) -> anyhow::Result<Arrivals> {
        let wanted = &self.settings.topics;
        let mut arrivals = SelectAll::new();
        for source in SOURCES {
            let topic = source.topic;
            let is_named = wanted.iter().any(|name| name == topic);
            if !is_named && !wanted.is_empty() {
                continue;
            }
            let ends = match self.kafka.topic(topic).await {
                Ok(state) => state.ends,
                Err(LogError::NoPartitions(_)) if !is_named => {
                    say_aside(&format!("tandem: there is no topic {topic}"));
                    continue;
                }
                Err(LogError::NoPartitions(_)) => bail!("there is no topic {topic}"),
                Err(error) => return Err(error).context("the log cannot be read"),
            };
            let end = |lowest: bool| -> Offsets {
                let ends = ends.iter();
                ends.map(|(partition, (low, high))| (*partition, if lowest { *low } else { *high }))
                    .collect()
            };
            let from = match self.settings.since {
                Some(Since::Beginning) => end(true),
                None => end(self.settings.until_end),
                Some(Since::Time(time)) => self.kafka.since(topic, milliseconds(time)).await?,
                Some(Since::Ago(ago)) => {
                    let time = Utc::now().checked_sub_signed(chrono::Duration::from_std(ago)?);
                    let time = time.context("--since is before all time")?;
                    self.kafka.since(topic, milliseconds(time)).await?
                }
            };
            if self.settings.until_end {
                let behind = ends.iter().filter(|(partition, (_, high))| {
                    from.get(partition).is_some_and(|offset| offset < high)
                });
                self.left
                    .extend(behind.map(|(partition, (_, high))| (topic, *partition, *high)));
            }
            let tail = self.kafka.tail(topic, &from, Attention::Prompt)?;
            let records = stream::unfold(tail, move |tail| async move {
                let arrived = tail.next().await;
                Some(((source, arrived), tail))
            });
            arrivals.push(records.boxed());
        }
        Ok(arrivals)
    }

    /// Shows a record if it was requested. Returns whether more records are wanted.
    async fn take(&mut self, source: Source, message: Message) -> bool {
        let position = message.position;
        let place =
            |topic: &str, partition: i32| (topic, partition) == (source.topic, position.partition);
        if self.settings.until_end {
            let end = self.left.iter().find(|(topic, of, _)| place(topic, *of));
            let Some((.., end)) = end.copied() else {
                // The record arrived after the command had started.
                return true;
            };
            if position.offset + 1 >= end {
                self.left.retain(|(topic, of, _)| !place(topic, *of));
            }
            if position.offset >= end {
                return true;
            }
        }
        let keys = &self.settings.keys;
        let is_asked_for =
            keys.is_empty() || message.key.as_ref().is_some_and(|key| keys.contains(key));
        if !is_asked_for {
            return true;
        }
        let mut shown = Shown::of(source, &message, &mut self.trust).await;
        self.shown += 1;
        if self.settings.short {
            shown.leave_out_the_body();
        }
        let as_json = self.settings.json || !std::io::IsTerminal::is_terminal(&std::io::stdout());
        if as_json {
            tell(&json(&shown.json()))
        } else {
            tell(&shown.text(has_colours()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_event_path::dead_letter_topic::dead_letter_topic;

    use super::*;

    #[test]
    fn the_dead_letters_of_every_topic_of_events_are_shown() {
        for source in SOURCES.iter().filter(|source| source.topic != source.of) {
            assert_eq!(source.topic, dead_letter_topic(source.of));
        }
        for topic in [CUSTOMERS, ORDERS].map(dead_letter_topic) {
            assert!(SOURCES.iter().any(|source| source.topic == topic));
        }
    }

    #[test]
    fn since_is_a_time_or_how_long_ago_or_the_beginning() {
        let time = "2026-11-29T17:00:00Z".parse().unwrap();
        assert_eq!(
            parse_since("2026-11-29T18:00:00+01:00"),
            Ok(Since::Time(time))
        );
        assert_eq!(parse_since("5m"), Ok(Since::Ago(Duration::from_secs(300))));
        assert_eq!(parse_since("beginning"), Ok(Since::Beginning));
        assert!(parse_since("yesterday").unwrap_err().contains("24h"));
    }

    #[test]
    fn what_was_published_since_before_1970_is_everything() {
        let of = |time: &str| milliseconds(time.parse().unwrap());
        assert_eq!(of("1970-01-01T00:00:01Z"), 1000);
        for before in ["1969-12-31T23:59:59.999Z", "1900-01-01T00:00:00Z"] {
            assert_eq!(of(before), 0, "{before}");
        }
    }
}
