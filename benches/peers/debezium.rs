//! The time from the answer to a write until its event is on the topic. Compares accounts, with its outbox and relay,
//! to a bare write of the same document with Debezium's connector for MongoDB, on the same MongoDB and Kafka. They run
//! in turns: while one is measured, the other has nothing to do.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::{
    Client, Collection,
    bson::{Document, doc},
    options::{Acknowledgment, WriteConcern},
};
use rdkafka::{
    ClientConfig, Message,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};
use tandem_backends::{Kafka, KafkaOptions, Mongo, Servers, free_port};
use tokio::runtime::Runtime;

use crate::{
    Peers,
    report::{self, Bars, say},
    shared::{LeanClient, call_at_rate, median, percentile, resident_mib},
    support::{
        Process, Tandem,
        graph::{CREATE, customer_input},
        poll_for,
    },
};

/// An odd number, for the median.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(10);
/// The JVMs of Kafka and Debezium compile code while they run.
const WARM_UP: Duration = Duration::from_secs(30);
const STARTS_WITHIN: Duration = Duration::from_secs(120);
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// Writes per second: at the first rate nothing is short, at the second a laptop is busy.
const RATES: [f64; 2] = [20.0, 200.0];
/// How often Debezium's loop polls for changes: a short interval, and the default.
const POLLS: [(&str, &str); 2] = [("5", "poll.interval.ms 5"), ("500", "as it comes")];

const OURS: &str = "accounts.customer.change";

static NEXT: AtomicU64 = AtomicU64::new(0);

fn next_id() -> String {
    format!("cdc-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// When the event of each id arrived.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<HashMap<String, Instant>>>);

/// Reads a topic from its end, on its own thread.
struct Reader {
    arrivals: Arrivals,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Reader {
    fn start(kafka: &Kafka, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", format!("measures-{topic}"))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("topic.metadata.refresh.interval.ms", "500")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let (arrivals, stop) = (Arrivals::default(), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (arrivals.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else {
                    continue;
                };
                let arrived = Instant::now();
                if let Some(id) = message.key().and_then(id_of) {
                    seen.0.lock().unwrap().entry(id).or_insert(arrived);
                }
            }
        });
        Self {
            arrivals,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The id in a key. Our key is the id itself; Debezium's is `{"id":"\"ID\""}`.
fn id_of(key: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(key) {
        Ok(Value::Object(key)) => {
            let id = key.get("id")?.as_str()?;
            Some(id.trim_matches('"').to_owned())
        }
        _ => String::from_utf8(key.to_vec()).ok(),
    }
}

/// How to write. Each write is answered when it is durable.
#[derive(Clone)]
enum Writes {
    Accounts(Arc<LeanClient>),
    Bare(Collection<Document>, Document),
}

impl Writes {
    async fn write(&self, id: &str) {
        match self {
            Self::Accounts(client) => {
                client
                    .ask(json!({"input": customer_input(id, "Lovelace")}))
                    .await;
            }
            Self::Bare(collection, document) => {
                let durably = WriteConcern::builder()
                    .w(Acknowledgment::Majority)
                    .journal(true)
                    .build();
                collection
                    .find_one_and_update(doc! { "_id": id }, doc! { "$set": document.clone() })
                    .upsert(true)
                    .write_concern(durably)
                    .await
                    .unwrap();
            }
        }
    }
}

/// Measures both.
pub fn measure(runtime: &Runtime, peers: &Peers) {
    let starting = Servers::start(KafkaOptions::for_measuring());
    let servers = runtime.block_on(starting).unwrap();
    let tandem = Tandem::builder().servers(&servers).start();
    let accounts = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    let accounts = Writes::Accounts(Arc::new(accounts));
    let reader = Reader::start(&servers.kafka, OURS);
    runtime.block_on(accounts.write("the-sample"));
    let mut document = runtime.block_on(async {
        let client = Client::with_uri_str(servers.mongo.uri()).await.unwrap();
        let stored = client
            .database("accounts")
            .collection::<Document>("customer.accounts");
        stored
            .find_one(doc! { "_id": "the-sample" })
            .await
            .unwrap()
            .unwrap()
    });
    document.remove("_id");
    let version = peers.version("DEBEZIUM");
    say!("# From the answer to the event on the topic, MongoDB and Kafka");
    say!(
        "ms, medians of {ROUNDS} rounds of {} s; the writes of Debezium's column are bare ones of the same document",
        ROUND.as_secs()
    );
    say!("{:<52} {:>8} {:>8} {:>8}", "", "/s", "p50", "p99");
    for _ in 0..2 {
        round(runtime, &accounts, &reader.arrivals, 200.0, WARM_UP / 2);
    }
    let mut groups: Vec<(String, Vec<f64>)> = Vec::new();
    for (poll, named) in POLLS {
        let debezium = Debezium::start(runtime, peers, &servers, poll, &document);
        round(
            runtime,
            &debezium.writes,
            &debezium.reader.arrivals,
            200.0,
            WARM_UP,
        );
        for rate in RATES {
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let ours = round(runtime, &accounts, &reader.arrivals, rate, ROUND);
                let writes = &debezium.writes;
                let theirs = round(runtime, writes, &debezium.reader.arrivals, rate, ROUND);
                rounds.push([ours, theirs].map(|it| [0.5, 0.99].map(|part| percentile(&it, part))));
            }
            let of = |whose: usize, part: usize| {
                median(rounds.iter().map(|round| round[whose][part]).collect())
            };
            let names = ["Tandem".to_owned(), format!("Debezium {version}, {named}")];
            for (whose, name) in names.iter().enumerate() {
                let (p50, p99) = (of(whose, 0), of(whose, 1));
                say!("{name:<52} {rate:>8.0} {p50:>8.1} {p99:>8.1}");
            }
            groups.push((
                format!("{rate} a second, p99, Debezium {named}"),
                vec![of(0, 1).max(0.0), of(1, 1)],
            ));
        }
        say!(
            "resident: accounts {:.0} MiB, Kafka Connect with Debezium {:.0} MiB",
            resident_mib(tandem.child("accounts").unwrap()),
            resident_mib(debezium.process.id())
        );
    }
    report::bars(
        "events",
        &Bars {
            title: "From the answer to the event on the topic",
            unit: "ms",
            series: &["Tandem", "Debezium"],
            groups,
        },
    );
}

/// Kafka Connect as a single process, with Debezium's connector on a collection of its own.
struct Debezium {
    process: Process,
    writes: Writes,
    reader: Reader,
    _directory: tempfile::TempDir,
}

impl Debezium {
    fn start(
        runtime: &Runtime,
        peers: &Peers,
        servers: &Servers,
        poll: &str,
        document: &Document,
    ) -> Self {
        let Servers { mongo, kafka } = servers;
        let directory = tempfile::tempdir().unwrap();
        let version = peers.version("DEBEZIUM");
        let libraries =
            peers.directory(&format!("debezium-{version}-{}", peers.version("CONNECT")));
        let prefix = format!("debezium-{poll}");
        let worker = directory.path().join("worker.properties");
        let connector = directory.path().join("connector.properties");
        fs::write(&worker, worker_properties(kafka, directory.path())).unwrap();
        fs::write(&connector, connector_properties(mongo, &prefix, poll)).unwrap();
        let (writes, reader) = runtime.block_on(async {
            let client = Client::with_uri_str(mongo.uri()).await.unwrap();
            let collection = client.database("peers").collection(&prefix);
            let writes = Writes::Bare(collection, document.clone());
            (
                writes,
                Reader::start(kafka, &format!("{prefix}.peers.{prefix}")),
            )
        });
        let mut command = Command::new("java");
        command
            .args([
                "-Xms256m",
                "-Xmx512m",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp",
            ])
            .arg(libraries.join("libs").join("*"))
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .arg(&worker)
            .arg(&connector);
        let process = Process::start(&mut command);
        let debezium = Self {
            process,
            writes,
            reader,
            _directory: directory,
        };
        debezium.wait_until_it_captures(runtime);
        debezium
    }

    fn wait_until_it_captures(&self, runtime: &Runtime) {
        let arrived = || !self.reader.arrivals.0.lock().unwrap().is_empty();
        let begun = Instant::now();
        while !arrived() {
            assert!(
                begun.elapsed() < STARTS_WITHIN,
                "Debezium captured nothing: {}\n{}",
                self.process.output(),
                self.process.errors()
            );
            runtime.block_on(self.writes.write(&next_id()));
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn worker_properties(kafka: &Kafka, directory: &Path) -> String {
    format!(
        "bootstrap.servers={}\nlisteners=http://127.0.0.1:{}\noffset.storage.file.filename={}\noffset.flush.interval.ms=10000\n\
         key.converter=org.apache.kafka.connect.json.JsonConverter\nkey.converter.schemas.enable=false\n\
         value.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter.schemas.enable=false\n\
         producer.acks=all\nproducer.linger.ms=0\n",
        kafka.bootstrap(),
        free_port().unwrap(),
        directory.join("offsets").display(),
    )
}

fn connector_properties(mongo: &Mongo, prefix: &str, poll: &str) -> String {
    format!(
        "name={prefix}\nconnector.class=io.debezium.connector.mongodb.MongoDbConnector\ntasks.max=1\n\
         mongodb.connection.string={}\ntopic.prefix={prefix}\ncollection.include.list=peers.{prefix}\n\
         capture.mode=change_streams_update_full\nsnapshot.mode=no_data\npoll.interval.ms={poll}\n\
         topic.creation.enable=true\ntopic.creation.default.replication.factor=1\ntopic.creation.default.partitions=6\n",
        mongo.uri(),
    )
}

/// Writes at this rate for this long. Returns the milliseconds from each answer until its event was read, sorted.
/// Negative where the event arrived before the answer.
fn round(
    runtime: &Runtime,
    writes: &Writes,
    arrivals: &Arrivals,
    rate: f64,
    time: Duration,
) -> Vec<f64> {
    let written = call_at_rate(runtime, rate, time, |_, _| {
        let writes = writes.clone();
        async move {
            let id = next_id();
            writes.write(&id).await;
            (id, Instant::now())
        }
    });
    let mut times: Vec<f64> = written
        .iter()
        .map(|(id, answered)| {
            let arrived = poll_for(ARRIVES_WITHIN, "the event of each write", || {
                arrivals.0.lock().unwrap().get(id).copied()
            });
            let after = arrived.saturating_duration_since(*answered).as_secs_f64();
            let before = answered.saturating_duration_since(arrived).as_secs_f64();
            (after - before) * 1_000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}
