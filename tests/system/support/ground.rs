//! A system whose stores and log can be lost, copied and manipulated separately, on the embedded defaults or on real
//! servers.

use std::{collections::BTreeMap, fs, time::Duration};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tandem_backends::{Kafka, KafkaOptions, Mongo, free_port};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Process, Signal, Tandem, TandemBuilder, poll, tandem_command};

const LIMIT: Duration = Duration::from_secs(60);
pub const CUSTOMERS: &str = "accounts.customer.change";
pub const KEYS: &str = "accounts.customer.key";
pub const ORDERS: &str = "orders.order.change";

/// A message in a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub payload: Option<Vec<u8>>,
}

impl Raw {
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(&found.1).into_owned())
    }

    /// The same message as written before events named their system.
    pub fn without_system(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "ce_tandemsystem");
        self
    }

    /// Whether it claims the topics for a system.
    pub fn is_claim(&self) -> bool {
        self.key.starts_with("!claim/")
    }

    /// The same message with another time in header and body.
    pub fn at(mut self, time: &str) -> Self {
        for (name, value) in &mut self.headers {
            if name == "ce_time" {
                *value = time.as_bytes().to_vec();
            }
        }
        let mut body: serde_json::Value =
            serde_json::from_slice(self.payload.as_deref().unwrap()).unwrap();
        for field in ["changedAt", "updatedAt", "createdAt", "placedAt"] {
            if body[field].is_string() {
                body[field] = time.into();
            }
        }
        self.payload = Some(body.to_string().into_bytes());
        self
    }
}

/// The stores and log of a system, whether it runs or not.
pub struct Ground {
    directory: TempDir,
    real: Option<Real>,
    asks_for_signatures: bool,
}

struct Real {
    runtime: Runtime,
    mongo: Mongo,
    kafka: Kafka,
}

/// A log that can be read and written without the services.
pub struct Log {
    bootstrap: String,
    broker: Option<Process>,
}

impl Ground {
    pub fn embedded() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            real: None,
            asks_for_signatures: false,
        }
    }

    /// The test has called `require!(mongod, kafka)`.
    pub fn on_real_servers() -> Self {
        let runtime = Runtime::new().unwrap();
        let (mongo, kafka) = runtime.block_on(async {
            let (mongo, kafka) =
                tokio::join!(Mongo::start(1), Kafka::start(KafkaOptions::default()));
            (mongo.unwrap(), kafka.unwrap())
        });
        Self {
            directory: tempfile::tempdir().unwrap(),
            real: Some(Real {
                runtime,
                mongo,
                kafka,
            }),
            asks_for_signatures: false,
        }
    }

    /// The same, but events must be signed, which is the default of the services.
    pub fn asking_for_signatures(mut self) -> Self {
        self.asks_for_signatures = true;
        self
    }

    pub fn builder(&self) -> TandemBuilder {
        let builder = Tandem::builder().data_dir(self.directory.path());
        let builder = if self.asks_for_signatures {
            builder
        } else {
            builder.accepts_unsigned()
        };
        match &self.real {
            None => builder,
            Some(real) => builder
                .flag("--mongodb-uri")
                .flag(real.mongo.uri())
                .kafka(real.kafka.bootstrap()),
        }
    }

    #[track_caller]
    pub fn start(&self) -> Tandem {
        self.builder().start()
    }

    /// Uses the sealing key of another system.
    pub fn with_key_of(self, other: &Self) -> Self {
        let key = |ground: &Self| ground.directory.path().join("sealing.key");
        fs::copy(key(other), key(&self)).unwrap();
        self
    }

    /// Gives the system another sealing key, in base64.
    pub fn write_key(&self, key: &str) {
        fs::write(self.directory.path().join("sealing.key"), key).unwrap();
    }

    /// Starts with this sealing key, in base64.
    pub fn spawn_with_key(&self, key: &str) -> Tandem {
        self.write_key(key);
        self.builder().spawn()
    }

    /// Empties a store, if there is one.
    pub fn forget_store(&self, service: &str) {
        let file = self.directory.path().join(service).with_extension("redb");
        if self.real.is_some() || file.exists() {
            self.lose_store(service);
        }
    }

    /// Empties a store.
    pub fn lose_store(&self, service: &str) {
        match &self.real {
            None => {
                let file = self.directory.path().join(service).with_extension("redb");
                fs::remove_file(file).unwrap();
            }
            Some(real) => real.runtime.block_on(async {
                let client = mongodb::Client::with_uri_str(real.mongo.uri())
                    .await
                    .unwrap();
                client.database(service).drop().await.unwrap();
            }),
        }
    }

    /// Replaces the log by an empty one, on another cluster.
    pub fn lose_log(&mut self) {
        match &mut self.real {
            None => fs::remove_dir_all(self.directory.path().join("broker")).unwrap(),
            Some(real) => {
                let kafka = Kafka::start(KafkaOptions::default());
                real.kafka = real.runtime.block_on(kafka).unwrap();
            }
        }
    }

    /// Replaces the content of the topic of keys by these messages. No service may run.
    pub fn put_keys(&self, keys: Option<&[Raw]>) {
        let log = self.log();
        log.remove(KEYS);
        if let Some(keys) = keys {
            log.put(KEYS, keys);
        }
    }

    /// The log. No service may run.
    pub fn log(&self) -> Log {
        match &self.real {
            Some(real) => Log {
                bootstrap: real.kafka.bootstrap(),
                broker: None,
            },
            None => {
                let port = free_port().unwrap();
                let broker = Process::start(
                    tandem_command()
                        .args(["broker", "--port", &port.to_string(), "--data-dir"])
                        .arg(self.directory.path().join("broker")),
                );
                Log {
                    bootstrap: format!("127.0.0.1:{port}"),
                    broker: Some(broker),
                }
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(broker) = &mut self.broker {
            broker.signal(Signal::TERM);
            broker.wait_for_end(LIMIT);
        }
    }
}

impl Log {
    /// The log of a running system.
    pub fn of(tandem: &Tandem) -> Self {
        Self {
            bootstrap: tandem.bootstrap_servers(),
            broker: None,
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "ground")
            .set("enable.auto.commit", "false")
            .set("log_level", "0");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// For each partition, the first offset and the one after the last message. Empty when the topic does not exist.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        let consumer: BaseConsumer = self.config().create().unwrap();
        let metadata = poll("the brokers answer", || {
            consumer.fetch_metadata(None, Duration::from_secs(2)).ok()
        });
        let found = metadata.topics().iter().find(|it| it.name() == topic);
        let partitions = found.map(|topic| topic.partitions()).unwrap_or_default();
        partitions
            .iter()
            .map(|partition| {
                let ends = poll("the ends of a partition", || {
                    consumer.fetch_watermarks(topic, partition.id(), LIMIT).ok()
                });
                (partition.id(), ends)
            })
            .collect()
    }

    /// Everything in a topic, in order within each partition.
    pub fn read(&self, topic: &str) -> Vec<Raw> {
        let mut left: BTreeMap<i32, i64> = BTreeMap::new();
        let mut all = TopicPartitionList::new();
        for (partition, (low, high)) in self.ends(topic) {
            if low < high {
                left.insert(partition, high);
                all.add_partition_offset(topic, partition, Offset::Offset(low))
                    .unwrap();
            }
        }
        let consumer: BaseConsumer = self.config().create().unwrap();
        consumer.assign(&all).unwrap();
        let mut found = Vec::new();
        while !left.is_empty() {
            let message = poll("the next message", || {
                consumer.poll(Duration::from_millis(200))?.ok()
            });
            let headers = message.headers().map_or_else(Vec::new, |headers| {
                let headers = headers.iter();
                headers
                    .map(|header| {
                        let value = header.value.unwrap_or_default();
                        (header.key.to_owned(), value.to_vec())
                    })
                    .collect()
            });
            found.push(Raw {
                partition: message.partition(),
                offset: message.offset(),
                key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
                headers,
                payload: message.payload().map(<[u8]>::to_vec),
            });
            if left[&message.partition()] <= message.offset() + 1 {
                left.remove(&message.partition());
            }
        }
        found
    }

    /// Makes a topic with the settings that the services use.
    pub fn make(&self, topic: &str) {
        let (partitions, policy) = if topic == KEYS {
            (1, "compact")
        } else {
            (6, "delete")
        };
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            .set("cleanup.policy", policy)
            .set("retention.ms", "-1");
        let admin = self.admin();
        poll("the topic is made", || {
            let made = block_on(admin.create_topics([&new], &AdminOptions::new())).ok()?;
            made[0].is_ok().then_some(())
        });
        poll("the topic is there", || {
            (self.ends(topic).len() == usize::try_from(partitions).unwrap()).then_some(())
        });
    }

    /// Removes a topic.
    pub fn remove(&self, topic: &str) {
        let removed = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new()));
        removed.unwrap()[0].as_ref().unwrap();
        poll("the topic is gone", || {
            self.ends(topic).is_empty().then_some(())
        });
    }

    /// Removes a topic and makes it again while services run. They may request it in between.
    pub fn remake(&self, topic: &str) {
        let removed = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new()));
        removed.unwrap()[0].as_ref().unwrap();
        self.make(topic);
    }

    /// Removes all messages before this offset.
    pub fn cut(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .unwrap();
        let cut = block_on(self.admin().delete_records(&list, &AdminOptions::new()));
        cut.unwrap();
    }

    /// The same for a compacted topic. Kafka does not delete records from a topic that is only compacted.
    pub fn cut_compacted(&self, topic: &str, partition: i32, offset: i64) {
        for (policy, is_cut) in [("compact,delete", true), ("compact", false)] {
            let settings = AlterConfig::new(ResourceSpecifier::Topic(topic))
                .set("cleanup.policy", policy)
                .set("retention.ms", "-1");
            let altered = block_on(
                self.admin()
                    .alter_configs([&settings], &AdminOptions::new()),
            );
            altered.unwrap()[0].as_ref().unwrap();
            if is_cut {
                poll("the records are removed", || {
                    self.cut(topic, partition, offset);
                    (self.ends(topic)[&partition].0 == offset).then_some(())
                });
            }
        }
    }

    /// Writes messages in order, each to its own partition.
    pub fn write(&self, topic: &str, messages: &[Raw]) {
        let producer: BaseProducer = self.config().create().unwrap();
        for message in messages {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &message.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(value),
                });
            }
            let mut record = BaseRecord::<str, [u8]>::to(topic)
                .partition(message.partition)
                .key(&message.key)
                .headers(headers);
            if let Some(payload) = &message.payload {
                record = record.payload(payload);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
    }

    /// Makes a topic and writes messages to it.
    pub fn put(&self, topic: &str, messages: &[Raw]) {
        self.make(topic);
        self.write(topic, messages);
    }
}
