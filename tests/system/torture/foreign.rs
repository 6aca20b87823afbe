//! What others do to the log: they write to the topics without the services, plainly and in transactions, add
//! partitions, and empty the topic of keys.

use std::{collections::HashMap, time::Duration};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::json;

use super::super::support::{
    checker::{CUSTOMER_TOPIC, FOREIGN, LoggedEvent, ORDER_TOPIC, read_topic},
    workload::Random,
};

pub const KEY_TOPIC: &str = "accounts.customer.key";
const TOPICS: [&str; 3] = [CUSTOMER_TOPIC, ORDER_TOPIC, KEY_TOPIC];
/// Time limit for the brokers. They may be down, and then nothing is done.
const LIMIT: Duration = Duration::from_secs(5);
/// The most partitions of a topic.
const PARTITIONS: usize = 12;
/// How many of the system's own events are known, for each topic.
const SAMPLE: usize = 40;
/// The most messages in one write.
const SOME: usize = 6;

/// Another producer that may write to the topics.
pub struct Foreign {
    client: ClientConfig,
    sample: HashMap<&'static str, Vec<LoggedEvent>>,
    partitions: HashMap<&'static str, usize>,
    transactions: Option<BaseProducer>,
    /// Whether a transaction was left open.
    is_open: bool,
}

/// A message to write.
struct Written {
    topic: &'static str,
    partition: i32,
    key: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    payload: Option<Vec<u8>>,
}

impl Written {
    /// One of the system's own events, unchanged and in its own partition. It has no effect.
    fn again(topic: &'static str, event: &LoggedEvent) -> Self {
        let headers = event.headers.iter();
        Self {
            topic,
            partition: event.partition,
            key: Some(event.key.clone()),
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect(),
            payload: (!event.payload.is_empty()).then(|| event.payload.clone()),
        }
    }

    /// Adds the mark by which the checker tells it from the system's own events.
    fn marked(mut self) -> Self {
        self.headers.push((FOREIGN.to_owned(), b"yes".to_vec()));
        self
    }

    /// A record that the system has not signed, made from one of its events.
    fn forged(topic: &'static str, event: &LoggedEvent, random: &mut Random) -> Self {
        let mut forged = Self::again(topic, event);
        match random.below(6) {
            0 => {
                forged
                    .headers
                    .retain(|(name, _)| name != "ce_tandemsignature");
                let mut body = event.body.clone();
                body["revision"] = json!(event.revision + 1);
                forged.payload = Some(body.to_string().into_bytes());
            }
            // The record of a data key names no system. Unchanged, it would be as valid as the system's own.
            1 if topic == KEY_TOPIC => forged
                .headers
                .retain(|(name, _)| name != "ce_tandemsignature"),
            1 => {
                for (name, value) in &mut forged.headers {
                    if name == "ce_tandemsystem" {
                        *value = b"another-system".to_vec();
                    }
                }
            }
            2 => {
                forged.headers.clear();
                forged.payload = Some(random.next().to_le_bytes().repeat(20));
            }
            3 => forged.key = None,
            4 => {
                forged
                    .headers
                    .retain(|(name, _)| name != "ce_tandemsignature");
                forged.payload = None;
            }
            _ => {
                for (name, value) in &mut forged.headers {
                    if name == "ce_tandemsignature" {
                        value.reverse();
                    }
                }
            }
        }
        forged.marked()
    }

    fn send(&self, producer: &BaseProducer) -> Result<(), KafkaError> {
        let headers = self.headers.iter();
        let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
        let record = BaseRecord::<str, [u8]>::to(self.topic)
            .partition(self.partition)
            .headers(headers);
        let record = match &self.key {
            Some(key) => record.key(key),
            None => record,
        };
        let record = match &self.payload {
            Some(payload) => record.payload(payload),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error)
    }
}

impl Foreign {
    pub fn new(client: ClientConfig) -> Self {
        Self {
            client,
            sample: HashMap::new(),
            partitions: [(CUSTOMER_TOPIC, 6), (ORDER_TOPIC, 6)].into(),
            transactions: None,
            is_open: false,
        }
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
        self.client.create()
    }

    fn options() -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(LIMIT))
            .operation_timeout(Some(LIMIT))
    }

    /// Reads what is on the topics, so that there are events to repeat and to forge.
    pub fn look(&mut self) {
        for topic in TOPICS {
            if let Ok(events) = read_topic(&self.client, topic) {
                let mut own: Vec<LoggedEvent> = events
                    .into_iter()
                    .filter(|event| !event.is_foreign())
                    .collect();
                let newest = own.split_off(own.len().saturating_sub(SAMPLE));
                self.sample.insert(topic, newest);
            }
        }
    }

    /// Messages to write. `own` out of ten are repeated events of the system.
    fn some(&self, own: usize, random: &mut Random) -> Vec<Written> {
        let count = 1 + random.below(SOME);
        let mut some = Vec::with_capacity(count);
        for _ in 0..count {
            let topic = TOPICS[random.below(TOPICS.len())];
            let Some(sample) = self.sample.get(topic).filter(|known| !known.is_empty()) else {
                continue;
            };
            let event = &sample[random.below(sample.len())];
            // An older data key or claim must not become the newest record of its key on a compacted topic.
            some.push(if topic != KEY_TOPIC && random.below(10) < own {
                Written::again(topic, event)
            } else {
                Written::forged(topic, event, random)
            });
        }
        some
    }

    /// Writes some messages. Returns how many. Fails if the brokers are down.
    pub fn write(&self, random: &mut Random) -> Result<usize, KafkaError> {
        let producer: BaseProducer = self
            .client
            .clone()
            .set("message.timeout.ms", "5000")
            .create()?;
        let some = self.some(2, random);
        for message in &some {
            message.send(&producer)?;
        }
        producer.flush(LIMIT)?;
        Ok(some.len())
    }

    /// Begins a transaction, writes some messages, and commits it, aborts it, or leaves it open until the next one or
    /// until Kafka aborts it. Returns what it did.
    pub fn transact(&mut self, random: &mut Random) -> Result<&'static str, KafkaError> {
        let done = self.try_to_transact(random);
        if done.is_err() {
            // A producer that was fenced, or whose transaction Kafka aborted, cannot be used any more.
            self.transactions = None;
            self.is_open = false;
        }
        done
    }

    fn try_to_transact(&mut self, random: &mut Random) -> Result<&'static str, KafkaError> {
        if self.is_open {
            self.end(random)?;
        }
        let producer = match self.transactions.take() {
            Some(producer) => producer,
            None => {
                let producer: BaseProducer = self
                    .client
                    .clone()
                    .set("transactional.id", format!("foreign-{}", random.next()))
                    .set("transaction.timeout.ms", "10000")
                    .set("message.timeout.ms", "5000")
                    .create()?;
                producer.init_transactions(LIMIT)?;
                producer
            }
        };
        producer.begin_transaction()?;
        for message in self.some(6, random) {
            message.send(&producer)?;
        }
        producer.flush(LIMIT)?;
        self.transactions = Some(producer);
        if random.below(3) == 0 {
            self.is_open = true;
            return Ok("transactions left open");
        }
        self.end(random)
    }

    fn end(&mut self, random: &mut Random) -> Result<&'static str, KafkaError> {
        self.is_open = false;
        let Some(producer) = &self.transactions else {
            return Ok("transactions left open");
        };
        if random.below(2) == 0 {
            producer.abort_transaction(LIMIT)?;
            return Ok("transactions aborted");
        }
        producer.commit_transaction(LIMIT)?;
        Ok("transactions committed")
    }

    /// Aborts a transaction that was left open.
    pub fn finish(&mut self) {
        if let Some(producer) = self.transactions.take() {
            // If this fails, Kafka aborts the transaction itself.
            let _ = producer.abort_transaction(LIMIT);
        }
    }

    /// Adds partitions to a topic. Returns whether it succeeded.
    pub fn add_partitions(&mut self, random: &mut Random) -> Result<bool, KafkaError> {
        let topic = [CUSTOMER_TOPIC, ORDER_TOPIC][random.below(2)];
        let count = self.partitions[topic] + 1 + random.below(2);
        if count > PARTITIONS {
            return Ok(false);
        }
        let more = NewPartitions::new(topic, count);
        let done = block_on(self.admin()?.create_partitions([&more], &Self::options()))?;
        let is_done = done.iter().all(Result::is_ok);
        if is_done {
            self.partitions.insert(topic, count);
        }
        Ok(is_done)
    }

    fn keep_keys_by(&self, policy: &str) -> Result<bool, KafkaError> {
        let settings = AlterConfig::new(ResourceSpecifier::Topic(KEY_TOPIC))
            .set("cleanup.policy", policy)
            .set("max.compaction.lag.ms", "86400000")
            .set("delete.retention.ms", "2592000000");
        let altered = block_on(self.admin()?.alter_configs([&settings], &Self::options()))?;
        Ok(altered.iter().all(Result::is_ok))
    }

    /// Removes everything from the topic of keys. Returns whether it succeeded.
    pub fn empty_keys(&self) -> Result<bool, KafkaError> {
        let consumer: BaseConsumer = self.client.clone().set("group.id", "foreign").create()?;
        let (_, end) = consumer.fetch_watermarks(KEY_TOPIC, 0, LIMIT)?;
        // Kafka does not delete records from a topic that is only compacted.
        if !self.keep_keys_by("compact,delete")? {
            return Ok(false);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(KEY_TOPIC, 0, Offset::Offset(end))?;
        let cut = block_on(self.admin()?.delete_records(&list, &Self::options())).is_ok();
        self.keep_keys_by("compact")?;
        Ok(cut)
    }

    /// Restores the cleanup policy of the topic of keys.
    pub fn keys_are_kept(&self) -> bool {
        self.keep_keys_by("compact").unwrap_or_default()
    }
}
