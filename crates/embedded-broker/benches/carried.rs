//! Measures how many events a broker carries from a producer to a consumer, and how much processor time each event
//! costs it.
//!
//! The events are like those of the services: 700 bytes and ten headers, keyed, in six partitions, from an idempotent
//! producer at `acks=all`, and consumed at the same time. The floor beside it is redb with as many rows of that size in
//! each durable commit.
//!
//! `cargo bench -p tandem-embedded-broker` measures this broker in its own process. `-- --other PORT PID` measures
//! another broker of the protocol that is already running on this machine.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use redb::{Database, TableDefinition};
use tandem_embedded_broker::{Settings, open};
use tokio_util::sync::CancellationToken;

const PARTITIONS: i32 = 6;
const VALUE: usize = 700;
const LIMIT: Duration = Duration::from_secs(300);
const SERVE: &str = "--serve";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        arguments
            .iter()
            .position(|one| one == flag)
            .map(|at| at + 1)
    };
    let directory = tempfile::tempdir().unwrap();
    if let Some(at) = after(SERVE) {
        return serve(Path::new(&arguments[at]));
    }
    if let Some(at) = after("--other") {
        let (port, process) = (
            arguments[at].parse().unwrap(),
            arguments[at + 1].parse().unwrap(),
        );
        return measure("other", port, process);
    }
    let (child, port) = start(directory.path());
    measure("this", port, child.0.id());
    floor(&directory.path().join("floor.redb"));
}

/// The broker's process, which is killed at the end of the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let broker = open(&Settings {
            port: 0,
            data_dir: directory.to_owned(),
            cleaning_interval: Settings::CLEANING_INTERVAL,
        })
        .unwrap();
        std::fs::write(directory.join("port"), broker.port().to_string()).unwrap();
        broker.serve(CancellationToken::new()).await.unwrap();
    });
}

fn start(directory: &Path) -> (Server, u16) {
    let child = Command::new(std::env::current_exe().unwrap())
        .arg(SERVE)
        .arg(directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let begin = Instant::now();
    loop {
        let port = std::fs::read_to_string(directory.join("port")).ok();
        if let Some(port) = port.and_then(|port| port.parse().ok()) {
            return (server, port);
        }
        assert!(begin.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processor time of a process so far, from Linux's `/proc`.
fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn config(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{port}"));
    config
}

fn measure(name: &str, port: u16, process: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (what, events, at_once) in [
        ("one at a time", 300, 1),
        ("64 in flight", 10_000, 64),
        ("10,000 in flight", 60_000, 10_000),
    ] {
        let topic = format!("carried-{at_once}");
        let admin: AdminClient<DefaultClientContext> = config(port).create().unwrap();
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
        runtime
            .block_on(admin.create_topics([&new], &AdminOptions::new()))
            .unwrap();
        let before = processor_time(process);
        let begin = Instant::now();
        let reader = {
            let topic = topic.clone();
            std::thread::spawn(move || read(port, &topic, events))
        };
        send(port, &topic, events, at_once);
        let sent = begin.elapsed();
        reader.join().unwrap();
        let carried = begin.elapsed();
        let cost = processor_time(process) - before;
        println!(
            "{name}, {what}: {:.0} events/s acknowledged, {:.0} events/s carried, {:.0} us of processor time each",
            f64::from(events) / sent.as_secs_f64(),
            f64::from(events) / carried.as_secs_f64(),
            cost.as_secs_f64() * 1e6 / f64::from(events),
        );
    }
    let before = processor_time(process);
    let seconds = 5;
    std::thread::sleep(Duration::from_secs(seconds));
    let idle = processor_time(process) - before;
    println!(
        "{name}, idle: {:.2} % of a processor",
        idle.as_secs_f64() * 100.0 / seconds as f64
    );
}

fn send(port: u16, topic: &str, events: i32, at_once: i32) {
    let producer: BaseProducer = config(port)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .unwrap();
    let value = vec![b'x'; VALUE];
    for number in 0..events {
        let key = (number % 1_000).to_string();
        let mut headers = OwnedHeaders::new();
        for name in [
            "id", "type", "source", "time", "subject", "schema", "version", "trace", "key", "kind",
        ] {
            headers = headers.insert(Header {
                key: name,
                value: Some("0190b5a2-7d1c-7aa0-9d0f-2f1f5d8b0c11"),
            });
        }
        let mut record = BaseRecord::to(topic)
            .key(&key)
            .payload(&value)
            .headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            );
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        while producer.in_flight_count() >= at_once {
            producer.poll(Duration::from_millis(1));
        }
    }
    producer.flush(LIMIT).unwrap();
}

fn read(port: u16, topic: &str, events: i32) {
    let consumer: BaseConsumer = config(port)
        .set("group.id", "carried")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let begin = Instant::now();
    let mut seen = 0;
    while seen < events {
        assert!(begin.elapsed() < LIMIT, "{seen} of {events}");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            message.unwrap();
            seen += 1;
        }
    }
}

/// redb alone: 64 rows of an event's size in each durable commit.
fn floor(path: &Path) {
    const ROWS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("rows");
    const AT_ONCE: u64 = 64;
    let database = Database::create(path).unwrap();
    let value = vec![b'x'; VALUE + 500];
    let begin = Instant::now();
    let mut rows = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(ROWS).unwrap();
            for row in rows..rows + AT_ONCE {
                table.insert(row, value.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
        rows += AT_ONCE;
    }
    println!(
        "floor, redb, {AT_ONCE} rows a durable commit: {:.0} rows/s",
        rows as f64 / begin.elapsed().as_secs_f64()
    );
}
