//! The torture test. Several clients send commands while processes are killed and paused at random, and live
//! subscribers resume after each break. At the end the checker runs. Other tests prove that the checker would find a
//! loss, and that a kill at each critical instant changes nothing.
//!
//! `TANDEM_TORTURE_SECONDS` sets the duration (30 by default; by hand as long as you like). `TANDEM_TORTURE_SEED`
//! repeats the choices of an earlier run.

mod foreign;
mod nemesis;
mod proof;
mod servers;
mod subscriber;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::ClientConfig;
use serde_json::json;
use tandem_backends::require;

use self::{
    foreign::{Foreign, KEY_TOPIC},
    nemesis::{Deeds, INSTANTS, Nemesis, tell},
    servers::Servers,
    subscriber::{ORDER_UPDATED, Sequence, Subscriber},
};
use super::support::{
    Client, Tandem, TandemBuilder, Transport,
    checker::{CUSTOMER_TOPIC, ORDER_TOPIC, System, check, examine, read_topic, whole_topic},
    graph::{CREATE, PLACE, customer_input, order_input},
    poll, poll_for,
    workload::{History, Random, Targets, Workload},
};

/// How long the system may take to accept commands again after a failure.
const RECOVERY: Duration = Duration::from_secs(90);

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

fn kafka(tandem: &Tandem) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", tandem.bootstrap_servers());
    config
}

fn targets(tandem: &Tandem) -> Targets {
    Targets {
        accounts: vec![
            tandem.accounts_url("/graphql"),
            tandem.gateway_url("/graphql"),
        ],
        orders: vec![
            tandem.orders_url("/graphql"),
            tandem.gateway_url("/graphql"),
        ],
    }
}

/// The result of [`examine`] for the whole system.
fn verdict(tandem: &Tandem, history: &History, limit: Duration) -> Result<(), String> {
    let (accounts, orders) = (
        tandem.accounts_url("/graphql"),
        tandem.orders_url("/graphql"),
    );
    let system = System {
        accounts: &accounts,
        orders: &orders,
        kafka: kafka(tandem),
    };
    examine(&system, history, limit).map(drop)
}

/// The first order of the system, and the cursor from which a subscriber gets everything after it.
fn first_cursor(tandem: &Tandem, client: &Client) -> (String, String) {
    let live = client.subscribe(
        Transport::WebSocket,
        &tandem.orders_url("/graphql/ws"),
        ORDER_UPDATED,
        json!({}),
    );
    tandem.customer(client, "first");
    // The feed may begin a moment after the subscription, so orders are placed until one arrives.
    poll("the first update", || {
        let id = tandem.order(client, "first");
        let mut payload = live.poll(Duration::from_secs(1)).expect("it goes on")?;
        assert!(payload["errors"].is_null(), "{payload}");
        let update = payload["data"]["orderUpdated"].take();
        let cursor = update["cursor"].as_str()?.to_owned();
        Some((id, cursor))
    })
}

#[test]
fn kills_and_pauses_at_random_lose_nothing_and_tell_everything_once() {
    torture(Tandem::builder().surviving_full_disks(), None);
}

#[test]
fn kills_and_pauses_at_random_lose_nothing_on_real_servers() {
    require!(mongod, kafka);
    // By hand: the embedded stores, whose disk can be full, with a real Kafka, which has transactions.
    let stores = std::env::var("TANDEM_TORTURE_STORES").unwrap_or_default();
    let servers = Servers::start(stores != "embedded");
    torture(servers.builder().surviving_full_disks(), Some(&servers));
}

fn torture(builder: TandemBuilder, servers: Option<&Servers>) {
    let seconds = number("TANDEM_TORTURE_SECONDS").unwrap_or(30);
    let seed = number("TANDEM_TORTURE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    println!("torture for {seconds} s; repeat its choices with TANDEM_TORTURE_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let instant_file = directory.path().join("instant");
    let mut tandem = builder
        .env("TANDEM_FAULT_FILE", instant_file.to_str().unwrap())
        .env("TANDEM_CLOCK_DIRECTORY", directory.path().to_str().unwrap())
        .start();
    let client = Client::new();
    let (first, cursor) = first_cursor(&tandem, &client);
    let subscribers = [
        (
            "SSE at the gateway",
            Transport::ServerSentEvents,
            tandem.gateway_url("/graphql"),
        ),
        (
            "multipart at the gateway",
            Transport::Multipart,
            tandem.gateway_url("/graphql"),
        ),
        (
            "WebSocket at orders",
            Transport::WebSocket,
            tandem.orders_url("/graphql/ws"),
        ),
    ]
    .map(|(name, transport, url)| Subscriber::start(name, transport, url, &cursor));
    let workload = Workload::start("torture", seed, 3, &targets(&tandem));
    workload.goes_on(20);

    let mut foreign = Foreign::new(kafka(&tandem));
    foreign.look();
    let mut nemesis = Nemesis {
        tandem: &mut tandem,
        random: Random::new(seed),
        instant_file,
        clocks: directory.path().to_owned(),
        servers,
        foreign,
        deeds: Deeds::default(),
    };
    let slowest = break_it(&mut nemesis, &workload, seconds);
    let Nemesis {
        deeds,
        instant_file,
        mut foreign,
        ..
    } = nemesis;
    let _ = std::fs::remove_file(instant_file);
    foreign.finish();
    poll("the topic of keys is compacted again", || {
        foreign.keys_are_kept().then_some(())
    });
    ready_again(&tandem, &client);
    let from = workload.acknowledged();
    poll_for(RECOVERY, "commands are taken again", || {
        (workload.acknowledged() >= from + 10).then_some(())
    });
    let history = workload.finish();
    let kills: u64 = deeds.kills.values().sum();
    println!(
        "survived {kills} kills {:?}, {} ends at chosen instants, {} pauses, {:?}; slowest recovery that was waited for {slowest:?}",
        deeds.kills, deeds.instants, deeds.pauses, deeds.others
    );
    // Keys that the topic of keys has lost are in the store.
    tandem.operated(&["keys", "publish"]);
    let (accounts, orders) = (
        tandem.accounts_url("/graphql"),
        tandem.orders_url("/graphql"),
    );
    let report = check(
        &System {
            accounts: &accounts,
            orders: &orders,
            kafka: kafka(&tandem),
        },
        &history,
    );
    println!(
        "{} commands acknowledged, 0 lost, {} unanswered, {} revisions checked, {} duplicates in the topics",
        history.acknowledged, history.unanswered, report.revisions, report.duplicates
    );
    keys_are_whole(&tandem, &history);
    only_foreign_letters(&tandem);
    let told = read_topic(&kafka(&tandem), ORDER_TOPIC)
        .unwrap()
        .into_iter()
        .filter(|event| !event.is_foreign())
        .filter(|event| event.body["customerId"] != "first" || event.key == first)
        .fold(HashMap::new(), |mut told: HashMap<String, i64>, event| {
            let newest = told.entry(event.key).or_default();
            *newest = event.revision.max(*newest);
            told
        });
    let told: HashMap<String, i64> = told.into_iter().filter(|(id, _)| *id != first).collect();
    let sequence = match deeds.others.get("topics given partitions") {
        None | Some(0) => Sequence::Strict,
        Some(_) => Sequence::LooseBetweenPartitions,
    };
    for subscriber in subscribers {
        subscriber.finish(&told, sequence);
    }
}

/// Breaks the system for this many seconds. Returns the slowest of the recoveries that it waited for.
fn break_it(nemesis: &mut Nemesis<'_>, workload: &Workload, seconds: u64) -> Duration {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        nemesis.strike();
        let respite = nemesis.milliseconds(100, 1_500);
        thread::sleep(respite);
        if nemesis.random.below(4) == 0 {
            let from = workload.acknowledged();
            let struck = Instant::now();
            poll_for(RECOVERY, "commands are taken again", || {
                (workload.acknowledged() >= from + 10).then_some(())
            });
            slowest = slowest.max(struck.elapsed());
        }
    }
    slowest
}

fn ready_again(tandem: &Tandem, client: &Client) {
    poll_for(RECOVERY, "all of it answers again", || {
        [
            tandem.accounts_url("/actuator/health/readiness"),
            tandem.orders_url("/actuator/health/readiness"),
            tandem.gateway_url("/actuator/health/readiness"),
        ]
        .iter()
        .all(|url| {
            client
                .try_get(url)
                .is_some_and(|answer| answer.status == 200)
        })
        .then_some(())
    });
}

/// Each acknowledged customer's key is on the topic of keys, and no event waits for one.
fn keys_are_whole(tandem: &Tandem, history: &History) {
    poll("no event waits for a key", || {
        let waiting = tandem.operated(&["keys", "waiting", "--json"]);
        (waiting.trim() == "[]").then_some(())
    });
    let topic = whole_topic(&kafka(tandem), KEY_TOPIC);
    let told: HashSet<&str> = topic
        .iter()
        .filter(|event| !event.is_foreign() && !event.payload.is_empty())
        .map(|event| event.key.as_str())
        .collect();
    let lacking: Vec<&String> = history
        .customers
        .keys()
        .filter(|id| !told.contains(id.as_str()))
        .collect();
    let shown: Vec<String> = topic
        .iter()
        .filter(|event| lacking.contains(&&event.key))
        .map(|event| {
            let (offset, bytes) = (event.offset, event.payload.len());
            format!(
                "{} at {offset}: {bytes} bytes, foreign {}",
                event.key,
                event.is_foreign()
            )
        })
        .collect();
    let ends = topic.first().map(|it| it.offset)..topic.last().map(|it| it.offset);
    assert!(
        lacking.is_empty(),
        "without a key: {lacking:?}; the topic has of them {shown:?}, and is from {ends:?}"
    );
}

/// Records of others become dead letters, and none of the system's own do.
fn only_foreign_letters(tandem: &Tandem) {
    for topic in [CUSTOMER_TOPIC, ORDER_TOPIC] {
        let foreign: HashSet<String> = whole_topic(&kafka(tandem), topic)
            .into_iter()
            .filter(super::support::checker::LoggedEvent::is_foreign)
            .map(|event| format!("{topic}/{}/{}", event.partition, event.offset))
            .collect();
        for service in ["accounts", "orders"] {
            let listed = tandem.operated(&[
                "dead-letters",
                "list",
                "--service",
                service,
                "--limit",
                "100000",
            ]);
            let letters: Vec<&str> = listed
                .lines()
                .filter(|line| line.contains(&format!("/{topic}/")))
                .collect();
            println!(
                "{service} has set {} of {topic} aside, of {} foreign messages",
                letters.len(),
                foreign.len()
            );
            for letter in letters {
                let place = letter.split_whitespace().next().unwrap_or_default();
                let place = place.split_once('/').map(|(_, place)| place);
                assert!(
                    place.is_some_and(|place| foreign.contains(place)),
                    "an event of the system's own is a dead letter: {letter}"
                );
            }
        }
    }
}

/// Waits until the process that was told to end has ended.
fn ended_as_told(file: &Path) {
    poll("a process ends as told", || (!file.exists()).then_some(()));
}

/// Creates a customer, and repeats that until it is answered, because a kill may interrupt it.
fn created(client: &Client, url: &str, id: &str) {
    poll(&format!("{id} is created"), || {
        let input = json!({"input": customer_input(id, "Lovelace")});
        let response = client.try_graphql(url, CREATE, input).ok()?;
        // It may exist already, if the first command was executed and its response was lost.
        let code = &response["errors"][0]["extensions"]["code"];
        (response["errors"].is_null() || code == "ALREADY_EXISTS" || code == "CONFLICT")
            .then_some(())
    });
}

#[test]
fn a_kill_at_each_instant_that_matters_leads_to_the_same_state() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("instant");
    let tandem = Tandem::builder()
        .env("TANDEM_FAULT_FILE", file.to_str().unwrap())
        .start();
    let client = Client::new();
    tandem.customer(&client, "regular");
    let (accounts, orders) = (
        tandem.accounts_url("/graphql"),
        tandem.orders_url("/graphql"),
    );
    let mut history = History {
        customers: HashMap::from([("regular".to_owned(), 1)]),
        acknowledged: 1,
        ..History::default()
    };
    for (number, instant) in INSTANTS.iter().enumerate() {
        let id = format!("kill-{number}");
        // Waits for the recovery from the previous kill, because a command that is sent only once must be accepted.
        ready_again(&tandem, &client);
        tell(&file, instant);
        let customers = instant.contains("customer")
            || instant.contains("accounts")
            || instant.contains("replica");
        if customers {
            let input = json!({"input": customer_input(&id, "Lovelace")});
            let first = client.try_graphql(&accounts, CREATE, input);
            ended_as_told(&file);
            if instant.starts_with("before-write") {
                assert!(
                    first.is_err(),
                    "{first:?}: nothing was written, yet it was answered"
                );
            }
            created(&client, &accounts, &id);
            tandem.replicated(&client, &id, 1);
            history.customers.insert(id.clone(), 1);
            // If both attempts had been executed, there would be a second revision.
            history.sent_customers.insert(id, 1);
        } else {
            let mut order = order_input("regular");
            order["idempotencyKey"] = json!(id);
            let first = client.try_graphql(&orders, PLACE, json!({"input": order}));
            ended_as_told(&file);
            if instant.starts_with("before-write") {
                assert!(
                    first.is_err(),
                    "{first:?}: nothing was written, yet it was answered"
                );
            }
            // The same key: the order is placed once, whatever the outcome of the first attempt.
            let placed = poll("the order is placed", || {
                let response = client
                    .try_graphql(&orders, PLACE, json!({"input": order}))
                    .ok()?;
                let placed = response["data"]["placeOrder"]["order"].clone();
                placed["id"].is_string().then_some(placed)
            });
            *history
                .sent_placings
                .entry("regular".to_owned())
                .or_default() += 1;
            history.orders.insert(
                placed["id"].as_str().unwrap().to_owned(),
                (1, "PLACED".to_owned()),
            );
        }
    }
    let system = System {
        accounts: &accounts,
        orders: &orders,
        kafka: kafka(&tandem),
    };
    let report = check(&system, &history);
    assert_eq!(report.customers, history.customers.len());
    assert_eq!(report.orders, history.orders.len());
    println!(
        "{} instants, duplicates in the topics: {}",
        INSTANTS.len(),
        report.duplicates
    );
}
