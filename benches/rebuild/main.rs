//! What a rebuild costs, beside a floor measured in the same run: the bare database's bulk write of as many documents
//! of the same size. Also measures the size of an event in the log.
//!
//!     cargo bench --bench rebuild                      20,000 customers, embedded store and broker
//!     cargo bench --bench rebuild -- 100000 servers    this many, also on real MongoDB and Kafka; writes the report
//!     cargo bench --bench rebuild -- servers alone     only real servers
//!
//! Only ratios matter. Tandem and the floor are measured in turns, and the median of the rounds is shown. The first
//! part has distinct customers, so every event is a write. In the second, most events are revisions of the same few
//! customers, so a rebuild writes only the newest.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::{collections::BTreeMap, future::IntoFuture, path::Path, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Document, RawDocumentBuf, doc};
use rdkafka::ClientConfig;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::json;
use tandem_backends::{KafkaOptions, Servers};
use tokio::runtime::Runtime;

#[path = "../report/mod.rs"]
mod report;
mod rounds;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;

use report::{A_NUMBER, Words, say};
use rounds::{Rates, Rounds};
use shared::{LeanClient, send_all};
use support::{
    Client, Tandem,
    checker::{CUSTOMER_TOPIC, LoggedEvent, ORDER_TOPIC, whole_topic},
    graph::{CREATE, PLACE, PUBLISHED, UPDATE, customer_input, order_input},
    poll_for,
};

const ROUNDS: usize = 3;
/// Requests in flight while the log is filled.
const IN_FLIGHT: usize = 64;
/// Customers of the second part.
const FEW: usize = 100;
/// Rows per commit of the embedded floor: as many as a rebuild writes in one commit.
const COMMIT: usize = 5_000;
/// Statements per command of MongoDB's floor, and concurrent commands.
const STATEMENTS: usize = 500;
const COMMANDS: usize = 2;

const BARE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("bare");
const STATES: [&str; 2] = ["customer.accounts", "order.orders"];

/// What is rebuilt, and where it is stored: target, service, collection.
const TARGETS: [(&str, &str, &str); 5] = [
    ("customer.accounts", "accounts", "customer.accounts"),
    ("accounts-audit", "accounts", "customer.changes"),
    ("order.orders", "orders", "order.orders"),
    ("orders-audit", "orders", "order.changes"),
    ("orders-replica", "orders", "customer.orders"),
];

fn main() {
    let words = Words::among(&["servers", "alone", A_NUMBER]);
    let (servers, alone) = (words.has("servers"), words.has("alone"));
    let count = words.number().unwrap_or(20_000);
    report::begin("rebuild", "What a rebuild takes", servers && !alone);
    let runtime = Runtime::new().unwrap();
    if !(servers && alone) {
        for content in [Content::Distinct(count), Content::Revisions(count)] {
            embedded(&runtime, content);
        }
    }
    if servers {
        for content in [Content::Distinct(count), Content::Revisions(count)] {
            on_servers(&runtime, content);
        }
    } else {
        say!("\nreal servers: left out; cargo bench --bench rebuild -- servers");
    }
    report::end();
}

/// The content of the log.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// This many customers, and an order of every fourth.
    Distinct(usize),
    /// This many changes of a few customers, and an order of each.
    Revisions(usize),
}

impl Content {
    fn events(self) -> usize {
        match self {
            Self::Distinct(count) | Self::Revisions(count) => count,
        }
    }

    fn orders(self) -> usize {
        match self {
            Self::Distinct(count) => count / 4,
            Self::Revisions(_) => FEW,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Distinct(count) => format!("{count} distinct customers"),
            Self::Revisions(count) => format!("{count} revisions of {FEW} customers"),
        }
    }

    /// The name in the file names of its charts.
    fn word(self) -> &'static str {
        match self {
            Self::Distinct(_) => "distinct",
            Self::Revisions(_) => "revisions",
        }
    }
}

fn id(number: usize) -> String {
    format!("bench-{number:07}")
}

/// Fills the log and waits until log and replica have everything.
fn fill(runtime: &Runtime, tandem: &Tandem, content: Content) {
    let (accounts, orders) = (
        tandem.accounts_url("/graphql"),
        tandem.orders_url("/graphql"),
    );
    let creating = LeanClient::new(&accounts, CREATE);
    let updating = LeanClient::new(&accounts, UPDATE);
    let placing = LeanClient::new(&orders, PLACE);
    let customers = match content {
        Content::Distinct(count) => count,
        Content::Revisions(_) => FEW,
    };
    runtime.block_on(async {
        send_all(IN_FLIGHT, customers, |number| {
            let input = customer_input(&id(number), "Lovelace");
            creating.ask(json!({"input": input}))
        })
        .await;
        send_all(IN_FLIGHT, content.events() - customers, |number| {
            let input = json!({"name": {"firstName": "Ada", "lastName": format!("Name{number}")}});
            let variables = json!({"id": id(number % FEW), "input": input});
            updating.ask(variables)
        })
        .await;
    });
    let client = Client::new();
    tandem.published(&client);
    for number in [customers - 1, customers / 2] {
        tandem.replicated(&client, &id(number), 1);
    }
    runtime.block_on(send_all(IN_FLIGHT, content.orders(), |number| {
        let input = order_input(&id(number));
        placing.ask(json!({"input": input}))
    }));
    tandem.published(&client);
}

/// Prints the size of an event in the log: key, headers and body.
fn show_sizes(kafka: &ClientConfig, file: Option<u64>) {
    let mut all = 0;
    for topic in [CUSTOMER_TOPIC, ORDER_TOPIC] {
        let events = whole_topic(kafka, topic);
        all += events.len();
        let mean = |part: fn(&LoggedEvent) -> usize| {
            events.iter().map(part).sum::<usize>() as f64 / events.len().max(1) as f64
        };
        let key = mean(|event| event.key.len());
        let headers = mean(|event| {
            let header = |(name, value): (&String, &String)| name.len() + value.len();
            event.headers.iter().map(header).sum()
        });
        let body = mean(|event| event.payload.len());
        say!(
            "{topic}: {} events, {:.0} bytes an event (key {key:.0}, headers {headers:.0}, body {body:.0})",
            events.len(),
            key + headers + body
        );
    }
    if let Some(file) = file {
        say!(
            "the broker's file: {:.0} bytes an event, with the keys' topic, indexes and free pages",
            file as f64 / all.max(1) as f64
        );
    }
}

/// Rebuilds both services.
fn rebuild(tandem: &Tandem) -> Rates {
    let mut rates = Rates::new();
    for service in ["accounts", "orders"] {
        let output = tandem.operated(&["rebuild", service]);
        for line in output.lines() {
            let (target, rest) = line.split_once(": ").unwrap();
            let (read, _) = rest.split_once(" events read").unwrap();
            let (_, rate) = rest.split_once('(').unwrap();
            let (rate, _) = rate.split_once(" events/s").unwrap();
            rates.insert(
                target.to_owned(),
                (read.parse().unwrap(), rate.parse().unwrap()),
            );
        }
    }
    rates
}

fn embedded(runtime: &Runtime, content: Content) {
    say!("\n# embedded store and broker, {}", content.name());
    let directory = tempfile::tempdir().unwrap();
    let start = || Tandem::builder().data_dir(directory.path()).start();
    {
        let tandem = start();
        fill(runtime, &tandem, content);
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", tandem.bootstrap_servers());
        show_sizes(&kafka, Some(bytes_of(&directory.path().join("broker"))));
    }
    let sizes = row_sizes(directory.path());
    let floor = |target: &str, rows: u64| {
        let file = directory.path().join("floor.redb");
        let rate = bare_rows(&file, rows, sizes[target]);
        std::fs::remove_file(file).unwrap();
        rate
    };
    let mut rounds = Rounds::default();
    {
        let tandem = start();
        for _ in 0..ROUNDS {
            rounds.add(&rebuild(&tandem), floor);
        }
    }
    rounds.show("over what is there, to redb");
    rounds.draw(
        &format!("embedded-{}", content.word()),
        &format!("Rebuilds over what is there, embedded, {}", content.name()),
        "rows that redb takes in commits of 5,000",
    );
    // A new store fills itself; it is empty before.
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        for service in ["accounts", "orders"] {
            std::fs::remove_file(directory.path().join(format!("{service}.redb"))).unwrap();
        }
        let tandem = start();
        let client = Client::new();
        for service in [tandem.accounts_url(""), tandem.orders_url("")] {
            poll_for(PUBLISHED, "the new store is filled", || {
                let health = client.try_get(&format!("{service}/actuator/health/readiness"))?;
                (health.status == 200).then_some(())
            });
        }
        drop(tandem);
        rounds.add(&filled(directory.path()), floor);
    }
    rounds.show("into new stores, while their consumers run");
}

/// What the services reported about filling their new stores, in the logs of their last start.
fn filled(directory: &Path) -> Rates {
    let mut rates = Rates::new();
    for service in ["accounts", "orders"] {
        let log = directory.join("logs").join(format!("{service}.log"));
        let log = std::fs::read_to_string(log).unwrap();
        for line in log
            .lines()
            .filter(|line| line.contains("a new store was filled"))
        {
            let field = |name: &str| {
                let (_, value) = line.split_once(&format!("{name}=")).unwrap();
                let value = value.split_whitespace().next().unwrap();
                value.trim_matches('"').to_owned()
            };
            let read: u64 = field("read").parse().unwrap();
            let seconds: f64 = field("seconds").parse().unwrap();
            rates.insert(field("target_name"), (read, read as f64 / seconds));
        }
    }
    rates
}

fn bytes_of(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

/// The mean size in bytes of a row of each target, in closed stores.
fn row_sizes(directory: &Path) -> BTreeMap<&'static str, usize> {
    type States<'a> = TableDefinition<'a, &'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;
    type Changes<'a> = TableDefinition<'a, (&'static str, i64), &'static [u8]>;
    type Replica<'a> = TableDefinition<'a, &'static str, (i64, &'static [u8])>;
    TARGETS
        .into_iter()
        .map(|(target, service, table)| {
            let file = directory.join(format!("{service}.redb"));
            let database = redb::Database::open(file).unwrap();
            let read = database.begin_read().unwrap();
            let sizes: Vec<usize> = if STATES.contains(&table) {
                let name = format!("{table}/state");
                let table = read.open_table(States::new(&name)).unwrap();
                let rows = table.iter().unwrap();
                rows.map(|row| row.unwrap().1.value().2.len()).collect()
            } else if table == "customer.orders" {
                let table = read.open_table(Replica::new(table)).unwrap();
                let rows = table.iter().unwrap();
                rows.map(|row| row.unwrap().1.value().1.len()).collect()
            } else {
                let table = read.open_table(Changes::new(table)).unwrap();
                let rows = table.iter().unwrap();
                rows.map(|row| row.unwrap().1.value().len()).collect()
            };
            (target, sizes.iter().sum::<usize>() / sizes.len().max(1))
        })
        .collect()
}

/// Rows per second that redb writes in key order, with commits as large as those of a rebuild.
fn bare_rows(file: &Path, rows: u64, size: usize) -> f64 {
    let database = redb::Database::create(file).unwrap();
    let bytes = vec![b'x'; size];
    let keys: Vec<String> = (0..usize::try_from(rows).unwrap()).map(id).collect();
    let begun = Instant::now();
    for commit in keys.chunks(COMMIT) {
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(BARE).unwrap();
            for key in commit {
                table.insert(key.as_str(), bytes.as_slice()).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    rows as f64 / begun.elapsed().as_secs_f64()
}

fn on_servers(runtime: &Runtime, content: Content) {
    say!(
        "\n# MongoDB (one node, majority, journaled) and Kafka (one node), {}",
        content.name()
    );
    let starting = Servers::start(KafkaOptions::for_measuring());
    let servers = runtime.block_on(starting).unwrap();
    let tandem = Tandem::builder().servers(&servers).start();
    fill(runtime, &tandem, content);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.kafka.bootstrap());
    show_sizes(&config, None);
    let databases = runtime
        .block_on(mongodb::Client::with_uri_str(servers.mongo.uri()))
        .unwrap();
    let samples: BTreeMap<&str, Document> = TARGETS
        .into_iter()
        .map(|(target, service, collection)| {
            let collection = databases
                .database(service)
                .collection::<Document>(collection);
            let sample = runtime.block_on(async { collection.find_one(doc! {}).await });
            let mut sample = sample.unwrap().unwrap();
            sample.remove("_id");
            (target, sample)
        })
        .collect();
    let floor = |target: &str, rows: u64| {
        runtime.block_on(bare_upserts(&databases, rows, &samples[target]))
    };
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        rounds.add(&rebuild(&tandem), floor);
    }
    rounds.show("over what is there, to update commands");
    rounds.draw(
        &format!("servers-{}", content.word()),
        &format!(
            "Rebuilds over what is there, MongoDB and Kafka, {}",
            content.name()
        ),
        "upserts that MongoDB takes in commands of 500",
    );
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        for (_, service, collection) in TARGETS {
            let collection = databases
                .database(service)
                .collection::<Document>(collection);
            runtime
                .block_on(async { collection.delete_many(doc! {}).await })
                .unwrap();
        }
        rounds.add(&rebuild(&tandem), floor);
    }
    rounds.show("into emptied collections, to update commands");
}

/// Documents per second that MongoDB writes with `update` commands of upserts, into a new collection.
async fn bare_upserts(client: &mongodb::Client, rows: u64, sample: &Document) -> f64 {
    let database = client.database("floor");
    let bare = database.collection::<Document>("bare");
    bare.drop().await.unwrap();
    database.create_collection("bare").await.unwrap();
    let statements: Vec<Document> = (0..usize::try_from(rows).unwrap())
        .map(|number| doc! { "q": { "_id": id(number) }, "u": sample.clone(), "upsert": true })
        .collect();
    let commands: Vec<RawDocumentBuf> = statements
        .chunks(STATEMENTS)
        .map(|statements| {
            let command = doc! {
                "update": "bare",
                "updates": statements,
                "ordered": false,
                "writeConcern": { "w": "majority", "j": true },
            };
            RawDocumentBuf::try_from(&command).unwrap()
        })
        .collect();
    let begun = Instant::now();
    stream::iter(commands)
        .map(|command| database.run_raw_command(command).into_future())
        .buffer_unordered(COMMANDS)
        .try_for_each(async |answer| {
            assert!(answer.get("writeErrors").is_none(), "{answer}");
            Ok(())
        })
        .await
        .unwrap();
    rows as f64 / begun.elapsed().as_secs_f64()
}
