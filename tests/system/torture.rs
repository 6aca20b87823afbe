//! The torture test: commands from several clients while processes are killed and paused at random, live subscribers that
//! resume after each break, and at the end the checker. Then the proof that the checker would find a loss, and that a
//! kill at each instant that matters changes nothing.
//!
//! `TANDEM_TORTURE_SECONDS` sets how long (30 by default, by hand as long as you like), `TANDEM_TORTURE_SEED` repeats the
//! choices of an earlier run.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::ClientConfig;
use serde_json::{Value, json};

use super::support::{
    Client, Signal, Tandem, Transport,
    checker::{CUSTOMER_TOPIC, ORDER_TOPIC, System, check, examine, read_topic},
    graph::{CREATE, PLACE, UPDATE, customer_input, order_input},
    poll, poll_for, signal, try_signal,
    workload::{History, Random, Targets, Workload},
};

const SERVICES: [&str; 4] = ["broker", "accounts", "orders", "router"];

const ORDER_UPDATED: &str = "subscription($after: String) {
    orderUpdated(after: $after) { cursor type order { id revision } } }";

/// How long the system may take to take commands again after a blow.
const RECOVERY: Duration = Duration::from_secs(90);

/// A subscriber that hears nothing for so long, though orders change, connects again.
const SILENCE: Duration = Duration::from_secs(20);

/// Where the kills at chosen instants are: the moment, and the aggregate, topic or projection.
const INSTANTS: [&str; 9] = [
    "before-write@customer",
    "before-publish@accounts.customer.change",
    "before-clear@accounts.customer.change",
    "before-commit@accounts-audit",
    "before-commit@orders-replica",
    "before-write@order",
    "before-publish@orders.order.change",
    "before-clear@orders.order.change",
    "before-commit@orders-audit",
];

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

/// What [`examine`] says of the whole system.
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

/// What a subscriber heard, over all its connections.
#[derive(Debug, Default)]
struct Heard {
    cursor: String,
    /// For each order the newest revision.
    newest: HashMap<String, i64>,
    updates: u64,
    connections: u64,
    /// Connections that stayed open and told nothing.
    silences: u64,
    faults: Vec<String>,
}

impl Heard {
    fn take(&mut self, update: &Value) {
        let (id, revision) = (
            update["order"]["id"].as_str().unwrap().to_owned(),
            update["order"]["revision"].as_i64().unwrap(),
        );
        update["cursor"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.cursor);
        self.updates += 1;
        let newest = self.newest.entry(id.clone()).or_default();
        if revision != *newest + 1 {
            self.faults.push(format!(
                "connection {}: revision {revision} of {id} after {newest}",
                self.connections
            ));
        }
        *newest = revision.max(*newest);
    }
}

/// Listens to all orders from a cursor on, and resumes with the newest cursor whenever the connection breaks.
struct Subscriber {
    name: &'static str,
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Subscriber {
    fn start(name: &'static str, transport: Transport, url: String, cursor: &str) -> Self {
        let heard = Arc::new(Mutex::new(Heard {
            cursor: cursor.to_owned(),
            ..Heard::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let client = Client::new();
            while !ends.load(Ordering::Relaxed) {
                let after = {
                    let mut heard = shared.lock().unwrap();
                    heard.connections += 1;
                    heard.cursor.clone()
                };
                let subscription =
                    client.subscribe(transport, &url, ORDER_UPDATED, json!({"after": after}));
                let mut last = Instant::now();
                while !ends.load(Ordering::Relaxed) {
                    match subscription.poll(Duration::from_millis(100)) {
                        Ok(Some(payload)) if payload["data"]["orderUpdated"].is_object() => {
                            last = Instant::now();
                            let update = &payload["data"]["orderUpdated"];
                            shared.lock().unwrap().take(update);
                        }
                        Ok(Some(payload)) => {
                            // Away is to be expected; that a cursor of its own is refused is not.
                            let code = &payload["errors"][0]["extensions"]["code"];
                            if code == "BAD_USER_INPUT" {
                                shared.lock().unwrap().faults.push(payload.to_string());
                            }
                            break;
                        }
                        Ok(None) if last.elapsed() > SILENCE => {
                            shared.lock().unwrap().silences += 1;
                            break;
                        }
                        Ok(None) => {}
                        Err(_) => break,
                    }
                }
                drop(subscription);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self {
            name,
            heard,
            stop,
            thread,
        }
    }

    /// Waits until it has heard everything that the topic tells, then stops it.
    fn finish(self, told: &HashMap<String, i64>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let missing = loop {
            let missing = {
                let heard = self.heard.lock().unwrap();
                let behind = |id: &String| heard.newest.get(id).copied().unwrap_or_default();
                told.iter()
                    .filter(|(id, revision)| behind(id) < **revision)
                    .map(|(id, revision)| format!("{id}: {} of {revision}", behind(id)))
                    .collect::<Vec<_>>()
            };
            if missing.is_empty() || Instant::now() > deadline {
                break missing;
            }
            thread::sleep(Duration::from_millis(50));
        };
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let heard = self.heard.lock().unwrap();
        println!(
            "subscriber by {}: {} updates over {} connections, {} of them fell silent",
            self.name, heard.updates, heard.connections, heard.silences
        );
        assert!(
            heard.faults.is_empty(),
            "{}: {:#?}",
            self.name,
            heard.faults
        );
        assert!(
            missing.is_empty(),
            "{} did not hear {missing:#?}",
            self.name
        );
    }
}

/// What the nemesis did.
#[derive(Debug, Default)]
struct Deeds {
    kills: BTreeMap<&'static str, u64>,
    pauses: u64,
    instants: u64,
}

/// Kills and pauses the processes of a system at random.
struct Nemesis<'a> {
    tandem: &'a mut Tandem,
    random: Random,
    /// Told to the processes by `TANDEM_FAULT_FILE`.
    instant_file: PathBuf,
    deeds: Deeds,
}

impl Nemesis<'_> {
    fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.random.below(to - from)) as u64)
    }

    fn kill(&mut self, service: &'static str) {
        let killed = self
            .tandem
            .child(service)
            .is_some_and(|process| try_signal(process, Signal::KILL));
        *self.deeds.kills.entry(service).or_default() += u64::from(killed);
    }

    fn some_service(&mut self) -> &'static str {
        SERVICES[self.random.below(SERVICES.len())]
    }

    fn strike(&mut self) {
        match self.random.below(100) {
            0..40 => {
                let service = self.some_service();
                self.kill(service);
            }
            40..65 => self.pause(),
            65..80 => {
                for service in SERVICES {
                    if self.random.below(2) == 0 {
                        self.kill(service);
                    }
                }
            }
            80..92 => {
                let instant = INSTANTS[self.random.below(INSTANTS.len())];
                tell(&self.instant_file, instant);
                self.deeds.instants += 1;
            }
            _ => self.kill_up(),
        }
    }

    fn pause(&mut self) {
        let service = self.some_service();
        // Now and then longer than a group waits for its member.
        let long = self.random.below(8) == 0;
        let pause = if long {
            self.milliseconds(6_500, 9_000)
        } else {
            self.milliseconds(100, 2_000)
        };
        let Some(process) = self.tandem.child(service) else {
            return;
        };
        if try_signal(process, Signal::STOP) {
            self.deeds.pauses += 1;
            thread::sleep(pause);
            try_signal(process, Signal::CONT);
        }
    }

    fn kill_up(&mut self) {
        let with_children = self.random.below(2) == 0;
        self.tandem.process.signal(Signal::KILL);
        if with_children {
            for service in SERVICES {
                self.kill(service);
            }
        }
        *self.deeds.kills.entry("up").or_default() += 1;
        self.tandem.process.wait_for_end(Duration::from_secs(10));
        // One that was told to end at an instant must not do so while everything starts: `up` would give up, rightly.
        let _ = std::fs::remove_file(&self.instant_file);
        self.tandem.start_again();
    }
}

/// Tells the processes to end at an instant.
fn tell(file: &Path, instant: &str) {
    // Whole at once: a process must not read half of it.
    let unfinished = file.with_extension("new");
    std::fs::write(&unfinished, instant).unwrap();
    std::fs::rename(&unfinished, file).unwrap();
}

/// The first order of the system, and the cursor with which a subscriber hears all that comes after.
fn first_cursor(tandem: &Tandem, client: &Client) -> (String, String) {
    let live = client.subscribe(
        Transport::WebSocket,
        &tandem.orders_url("/graphql/ws"),
        ORDER_UPDATED,
        json!({}),
    );
    tandem.customer(client, "first");
    // The feed may begin a moment after the subscription: an order is placed until one is heard.
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
    let seconds = number("TANDEM_TORTURE_SECONDS").unwrap_or(30);
    let seed = number("TANDEM_TORTURE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    println!("torture for {seconds} s; repeat its choices with TANDEM_TORTURE_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let instant_file = directory.path().join("instant");
    let mut tandem = Tandem::builder()
        .env("TANDEM_FAULT_FILE", instant_file.to_str().unwrap())
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

    let mut nemesis = Nemesis {
        tandem: &mut tandem,
        random: Random::new(seed),
        instant_file,
        deeds: Deeds::default(),
    };
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
    let Nemesis {
        deeds,
        instant_file,
        ..
    } = nemesis;
    let _ = std::fs::remove_file(instant_file);
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
    let from = workload.acknowledged();
    poll_for(RECOVERY, "commands are taken again", || {
        (workload.acknowledged() >= from + 10).then_some(())
    });
    let history = workload.finish();
    let kills: u64 = deeds.kills.values().sum();
    println!(
        "survived {kills} kills {:?}, {} ends at chosen instants, {} pauses; slowest recovery that was waited for {slowest:?}",
        deeds.kills, deeds.instants, deeds.pauses
    );
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
        "{} commands acknowledged, {} unanswered, {} revisions checked, {} duplicates in the topics",
        history.acknowledged, history.unanswered, report.revisions, report.duplicates
    );
    let told = read_topic(&kafka(&tandem), ORDER_TOPIC)
        .unwrap()
        .into_iter()
        .filter(|event| event.body["customerId"] != "first" || event.key == first)
        .fold(HashMap::new(), |mut told: HashMap<String, i64>, event| {
            let newest = told.entry(event.key).or_default();
            *newest = event.revision.max(*newest);
            told
        });
    let told: HashMap<String, i64> = told.into_iter().filter(|(id, _)| *id != first).collect();
    for subscriber in subscribers {
        subscriber.finish(&told);
    }
}

/// Waits until the process that was told to end has done so.
fn ended_as_told(file: &Path) {
    poll("a process ends as told", || (!file.exists()).then_some(()));
}

/// Creates a customer, and again until it is answered: a kill may have come between.
fn created(client: &Client, url: &str, id: &str) {
    poll(&format!("{id} is created"), || {
        let input = json!({"input": customer_input(id, "Lovelace")});
        let response = client.try_graphql(url, CREATE, input).ok()?;
        // It may exist already: the first command was carried out and its answer lost.
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
            // Were the first attempt and the second both carried out, there would be a second revision.
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
            // The same key: placed once, whatever became of the first attempt.
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

#[test]
fn the_checker_finds_a_relay_that_clears_before_it_publishes() {
    let mut tandem = Tandem::builder()
        .flag("--no-restart")
        .env("TANDEM_FAULT", "clear-before-publish")
        .start();
    let client = Client::new();
    tandem.customer(&client, "kept");
    let accounts = tandem.accounts_url("/graphql");
    // The broker is away when the commands are acknowledged, and accounts is killed before it is back. What is cleared
    // is durable with the command after it.
    let (broker, killed) = (
        tandem.child("broker").unwrap(),
        tandem.child("accounts").unwrap(),
    );
    signal(broker, Signal::KILL);
    let mut history = History {
        customers: HashMap::from([("kept".to_owned(), 1)]),
        acknowledged: 1,
        ..History::default()
    };
    for number in 0..30 {
        let id = format!("lost-{number:02}");
        let input = json!({"input": customer_input(&id, "Lovelace")});
        client.data(&accounts, CREATE, input);
        history.customers.insert(id, 1);
        history.acknowledged += 1;
    }
    signal(killed, Signal::KILL);
    tandem.process.signal(Signal::TERM);
    tandem.process.wait_for_end(Duration::from_secs(20));
    tandem.start_again();
    let fault = verdict(&tandem, &history, Duration::from_secs(5)).unwrap_err();
    assert!(
        fault.contains("LOST: lost-00 is stored at revision 1") && fault.contains(CUSTOMER_TOPIC),
        "{fault}"
    );
}

#[test]
fn the_checker_finds_a_projection_that_commits_before_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("instant");
    let tandem = Tandem::builder()
        .env("TANDEM_FAULT", "commit-before-write")
        .env("TANDEM_FAULT_FILE", file.to_str().unwrap())
        .start();
    let client = Client::new();
    tandem.customer(&client, "kept");
    tell(&file, "after-early-commit@orders-replica");
    let lost = json!({"input": customer_input("lost", "Lovelace")});
    client.data(&tandem.accounts_url("/graphql"), CREATE, lost);
    ended_as_told(&file);
    // The flow goes on behind what was lost.
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    let variables = json!({"id": "kept", "input": name});
    client.data(&tandem.accounts_url("/graphql"), UPDATE, variables);
    poll("the replica goes on", || {
        tandem.replicated(&client, "kept", 2);
        Some(())
    });
    let history = History {
        customers: HashMap::from([("kept".to_owned(), 2), ("lost".to_owned(), 1)]),
        acknowledged: 3,
        ..History::default()
    };
    let fault = verdict(&tandem, &history, Duration::from_secs(5)).unwrap_err();
    assert!(
        fault.contains("LOST: lost is stored at revision 1, the replica holds None"),
        "{fault}"
    );
}
