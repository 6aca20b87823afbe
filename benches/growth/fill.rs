//! Fills a system with customers and events through its API, and prints the progress.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    EVENTS,
    report::say,
    shared::{LeanClient, call_times, send_all},
    support::{
        Client, Tandem,
        graph::{CREATE, ORDERING_CUSTOMER, UPDATE, customer_input},
        poll_for,
    },
};

/// More than in the other benchmarks: commands in flight share a commit, and latency does not matter here.
const IN_FLIGHT: usize = 256;
/// The prefix of the ids.
const PREFIX: &str = "grown";
/// How often the progress is printed.
const REPORTS: Duration = Duration::from_secs(5);
/// How many of the last customers are looked up. They are enough to be in every partition by chance.
const LAST: usize = 32;
const THROUGH_WITHIN: Duration = Duration::from_secs(3_600);
/// How many customers are changed while the servers warm up, and for how long.
const WARMING: usize = 64;
const WARM_UP: Duration = Duration::from_secs(90);

const AUDITED: &str =
    "query($id: ID!) { customer(id: $id) { changes(first: 10) { nodes { revision } } } }";

/// The id of a customer. Numbers follow the order of creation.
pub fn id(number: usize) -> String {
    format!("{PREFIX}-{number:07}")
}

/// Counts answered requests, and prints the progress every few seconds.
struct Progress {
    all: usize,
    answered: AtomicUsize,
    begun: Instant,
    told: Mutex<Instant>,
}

impl Progress {
    fn of(all: usize) -> Self {
        let now = Instant::now();
        Self {
            all,
            answered: AtomicUsize::new(0),
            begun: now,
            told: Mutex::new(now),
        }
    }

    fn one_more(&self) {
        let answered = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().unwrap();
        if told.elapsed() < REPORTS {
            return;
        }
        *told = Instant::now();
        let rate = answered as f64 / self.begun.elapsed().as_secs_f64();
        println!(
            "filling: {answered} of {} events, {rate:.0} a second, {:.0} s to go",
            self.all,
            (self.all - answered) as f64 / rate
        );
    }
}

/// Adds these customers with all their events, and waits until all are processed.
pub fn with(runtime: &Runtime, tandem: &Tandem, customers: Range<usize>) {
    let url = tandem.accounts_url("/graphql");
    let (creating, updating) = (LeanClient::new(&url, CREATE), LeanClient::new(&url, UPDATE));
    let (first, count) = (customers.start, customers.len());
    let progress = Progress::of(count * EVENTS);
    runtime.block_on(send_all(IN_FLIGHT, count, async |number: usize| {
        let input = customer_input(&id(first + number), "Lovelace");
        creating.ask(json!({"input": input})).await;
        progress.one_more();
    }));
    for round in 1..EVENTS {
        // Waiting here limits the outbox to the events of one round.
        tandem.published(&Client::new());
        runtime.block_on(send_all(IN_FLIGHT, count, async |number: usize| {
            let name = json!({"firstName": "Ada", "lastName": format!("Lovelace {round}")});
            let change = json!({"id": id(first + number), "input": {"name": name}});
            updating.ask(change).await;
            progress.one_more();
        }));
    }
    let answered = progress.begun.elapsed().as_secs_f64();
    through(tandem, customers.end);
    say!(
        "{} events of {count} customers were answered in {answered:.0} s, {:.0} a second, and through after {:.0} s",
        progress.all,
        progress.all as f64 / answered,
        progress.begun.elapsed().as_secs_f64()
    );
}

/// Waits until the last of this many customers are published, in the replica and in the audit trail.
fn through(tandem: &Tandem, customers: usize) {
    let client = Client::new();
    tandem.published(&client);
    replicated(tandem, customers);
    let accounts = tandem.accounts_url("/graphql");
    for number in customers.saturating_sub(LAST)..customers {
        let id = id(number);
        poll_for(THROUGH_WITHIN, "the audit trail has everything", || {
            let shown = client
                .try_graphql(&accounts, AUDITED, json!({"id": id}))
                .ok()?;
            let changes = shown["data"]["customer"]["changes"]["nodes"].as_array()?;
            (changes.len() >= EVENTS).then_some(())
        });
    }
}

/// Waits until orders shows the newest state of the last of this many customers.
pub fn replicated(tandem: &Tandem, customers: usize) {
    let client = Client::new();
    let orders = tandem.orders_url("/graphql");
    for number in customers.saturating_sub(LAST)..customers {
        let id = id(number);
        poll_for(THROUGH_WITHIN, "the replica has everything", || {
            let shown: Value = client
                .try_graphql(&orders, ORDERING_CUSTOMER, json!({"id": id}))
                .ok()?;
            let held = shown["data"]["orderingCustomer"]["replica"]["revision"].as_u64()?;
            (held >= EVENTS as u64).then_some(())
        });
    }
}

/// Changes a few customers until Kafka's JVM has compiled its hot code. Otherwise the small system would be measured on
/// a slower Kafka than the large one.
pub fn warm_up(runtime: &Runtime, tandem: &Tandem) {
    let url = tandem.accounts_url("/graphql");
    let creating = LeanClient::new(&url, CREATE);
    let warming = |number: usize| format!("warming-{}", number % WARMING);
    runtime.block_on(send_all(WARMING, WARMING, async |number: usize| {
        let input = customer_input(&warming(number), "Lovelace");
        creating.ask(json!({"input": input})).await;
    }));
    println!("warming up Kafka and MongoDB for {} s", WARM_UP.as_secs());
    let updating = Arc::new(LeanClient::new(&url, UPDATE));
    call_times(runtime, WARMING, WARM_UP, move |number| {
        let updating = Arc::clone(&updating);
        async move {
            let name = json!({"firstName": "Ada", "lastName": format!("Lovelace {number}")});
            let change = json!({"id": warming(number), "input": {"name": name}});
            updating.ask(change).await;
        }
    });
    tandem.published(&Client::new());
}
