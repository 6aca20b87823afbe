//! The system with all places where it stores data: files, documents, messages. For tests that search for traces.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::TryStreamExt;
use mongodb::bson::{RawDocumentBuf, doc, rawdoc};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tandem_backends::{KafkaOptions, Mongo, Servers};
use tokio::runtime::Runtime;

use super::{Tandem, TandemBuilder, poll};

const LIMIT: Duration = Duration::from_secs(10);
const DATABASES: [&str; 2] = ["accounts", "orders"];
/// The place where a trace is planted, to prove that the search finds it.
const PROBE: &str = "probe";

/// A running system and its places.
pub struct Site {
    pub tandem: Tandem,
    real: Option<Real>,
}

struct Real {
    runtime: Runtime,
    servers: Servers,
}

impl Site {
    /// On the embedded defaults.
    pub fn embedded() -> Self {
        Self {
            tandem: Tandem::start(),
            real: None,
        }
    }

    /// On a real MongoDB and a real Kafka. The test has called `require!(mongod, kafka)`.
    pub fn on_real_servers() -> Self {
        Self::on_real_servers_with(|builder| builder)
    }

    /// The same, with more settings.
    pub fn on_real_servers_with(settings: impl FnOnce(TandemBuilder) -> TandemBuilder) -> Self {
        let runtime = Runtime::new().unwrap();
        let starting = Servers::start(KafkaOptions::default());
        let servers = runtime.block_on(starting).unwrap();
        let builder = Tandem::builder().servers(&servers);
        Self {
            tandem: settings(builder).start(),
            real: Some(Real { runtime, servers }),
        }
    }

    /// The content of every file, document and message, each with the name of its place.
    pub fn everything(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = self.files();
        all.extend(self.documents());
        all.extend(self.messages());
        all
    }

    /// Plants a text where traces are searched: in a document with MongoDB, otherwise in a file.
    pub fn plant(&self, text: &str) {
        match &self.real {
            None => fs::write(self.tandem.data_dir().join(PROBE), text).unwrap(),
            Some(real) => real.runtime.block_on(async {
                let client = client(&real.servers.mongo).await;
                let probe = client
                    .database(DATABASES[1])
                    .collection::<RawDocumentBuf>(PROBE);
                let document = rawdoc! { "deep": { "text": text } };
                probe.insert_one(document).await.unwrap();
            }),
        }
    }

    /// Removes the planted text.
    pub fn weed(&self) {
        match &self.real {
            None => fs::remove_file(self.tandem.data_dir().join(PROBE)).unwrap(),
            Some(real) => real.runtime.block_on(async {
                let client = client(&real.servers.mongo).await;
                let database = client.database(DATABASES[1]);
                let probe = database.collection::<RawDocumentBuf>(PROBE);
                probe.drop().await.unwrap();
            }),
        }
    }

    /// Whether states are MongoDB documents, which are stored in plain. Files are sealed.
    pub fn has_documents(&self) -> bool {
        self.real.is_some()
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut paths = Vec::new();
        walk(self.tandem.data_dir(), &mut paths);
        let of_store = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "redb");
        let files = paths.iter().filter(of_store).count();
        // Two stores and the log.
        assert_eq!(files, if self.real.is_some() { 0 } else { 3 });
        paths
            .into_iter()
            // A file may disappear during the search, such as a write-ahead log.
            .filter_map(|path| Some((path.display().to_string(), fs::read(&path).ok()?)))
            .collect()
    }

    /// The bytes of every document of every collection in both databases. Empty without MongoDB.
    pub fn documents(&self) -> Vec<(String, Vec<u8>)> {
        let Some(real) = &self.real else {
            return Vec::new();
        };
        real.runtime.block_on(async {
            let client = client(&real.servers.mongo).await;
            let mut found = Vec::new();
            for name in DATABASES {
                let database = client.database(name);
                let collections = database.list_collection_names().await.unwrap();
                assert!(collections.len() >= 3, "{name}: {collections:?}");
                for collection in collections {
                    let documents: Vec<RawDocumentBuf> = database
                        .collection(&collection)
                        .find(doc! {})
                        .await
                        .unwrap()
                        .try_collect()
                        .await
                        .unwrap();
                    let place = format!("{name}.{collection}");
                    found.extend(
                        documents
                            .into_iter()
                            .map(|document| (place.clone(), document.into_bytes())),
                    );
                }
            }
            found
        })
    }

    /// Every message of every topic: key, headers and body together.
    fn messages(&self) -> Vec<(String, Vec<u8>)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.tandem.bootstrap_servers())
            .set("group.id", "traces")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(None, LIMIT).unwrap();
        let mut all = TopicPartitionList::new();
        let mut left = Vec::new();
        for topic in metadata.topics() {
            for partition in topic.partitions() {
                let (low, high) = consumer
                    .fetch_watermarks(topic.name(), partition.id(), LIMIT)
                    .unwrap();
                if low < high {
                    left.push((topic.name().to_owned(), partition.id(), high));
                    all.add_partition_offset(topic.name(), partition.id(), Offset::Offset(low))
                        .unwrap();
                }
            }
        }
        consumer.assign(&all).unwrap();
        let mut found = Vec::new();
        while !left.is_empty() {
            let message = poll("the next message of all topics", || {
                consumer.poll(Duration::from_millis(200))?.ok()
            });
            let mut bytes = [message.key(), message.payload()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .concat();
            if let Some(headers) = message.headers() {
                use rdkafka::message::Headers as _;
                for header in headers.iter() {
                    bytes.extend_from_slice(header.value.unwrap_or_default());
                }
            }
            found.push((message.topic().to_owned(), bytes));
            // A compacted topic has gaps, so the offset decides whether the end is reached.
            left.retain(|(topic, partition, high)| {
                (topic.as_str(), *partition) != (message.topic(), message.partition())
                    || message.offset() + 1 < *high
            });
        }
        let has = |wanted: &str| found.iter().any(|(topic, _)| topic == wanted);
        assert!(has("accounts.customer.key") && has("accounts.customer.change"));
        found
    }
}

async fn client(mongo: &Mongo) -> mongodb::Client {
    mongodb::Client::with_uri_str(mongo.uri()).await.unwrap()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Each secret in plain, and in base64 at each of the three alignments.
fn needles(secrets: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut needles = Vec::new();
    for secret in secrets {
        needles.push(((*secret).to_owned(), secret.as_bytes().to_vec()));
        for shift in 0..3 {
            let shifted = [&vec![b'x'; shift], secret.as_bytes()].concat();
            let text = STANDARD.encode(&shifted);
            // Characters that also depend on neighbouring bytes are left out.
            let (from, to) = (shift * 4 / 3 + usize::from(shift > 0), text.len() - 4);
            needles.push((
                format!("{secret} in base64"),
                text.as_bytes()[from..to].to_vec(),
            ));
        }
    }
    needles
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window[0] == needle[0] && window == needle)
}

/// The places in which any of these secrets is found.
pub fn traces(places: &[(String, Vec<u8>)], secrets: &[&str]) -> Vec<String> {
    let needles = needles(secrets);
    let mut found = Vec::new();
    for (place, bytes) in places {
        for (what, needle) in &needles {
            if holds(bytes, needle) {
                found.push(format!("{what} in {place}"));
            }
        }
    }
    found
}
