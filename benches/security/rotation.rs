//! Replaces the sealing key of many customers with cards while 64 clients create others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    report::say,
    shared::{LeanClient, send_all},
    support::{
        Client, Tandem,
        graph::{CREATE, UPDATE, customer_input},
        ground::Ground,
    },
};

const OLD: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
const NEW: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";
const CLIENTS: usize = 64;
/// How long the rate without a rotation is measured.
const BEFORE: Duration = Duration::from_secs(10);
/// How long the replacement may take.
const LIMIT: Duration = Duration::from_secs(3_600);
/// Customers whose cards are decrypted at the end.
const OPENED: usize = 1_000;
const REVISION: &str = "query($id: ID!) { customer(id: $id) { revision } }";

/// Clients that create customers until they are stopped.
struct Creators {
    stop: Arc<AtomicBool>,
    created: Arc<AtomicUsize>,
    begun: Instant,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Creators {
    fn begin(runtime: &Runtime, tandem: &Tandem, prefix: &'static str) -> Self {
        let (stop, created) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let client = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
        let tasks = (0..CLIENTS)
            .map(|task| {
                let (stop, created) = (Arc::clone(&stop), Arc::clone(&created));
                let client = Arc::clone(&client);
                runtime.spawn(async move {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let input = customer_input(&format!("{prefix}-{task}-{number}"), "King");
                        client.ask(json!({"input": input})).await;
                        created.fetch_add(1, Ordering::Relaxed);
                        number += 1;
                    }
                })
            })
            .collect();
        Self {
            stop,
            created,
            begun: Instant::now(),
            tasks,
        }
    }

    /// Stops the clients. Returns creations per second.
    fn end(self, runtime: &Runtime) -> f64 {
        let rate = self.created.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            runtime.block_on(task).unwrap();
        }
        rate
    }
}

fn id(number: usize) -> String {
    format!("sealed-{number:07}")
}

fn fill(runtime: &Runtime, tandem: &Tandem, count: usize) {
    let client = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    runtime.block_on(send_all(CLIENTS, count, |number| {
        let input = customer_input(&id(number), "Lovelace");
        client.ask(json!({"input": input}))
    }));
    let client = Client::new();
    tandem.published(&client);
    tandem.replicated(&client, &id(count - 1), 1);
}

/// How many of some customers have cards that the new key alone does not open. The same card is written again: if the
/// stored number opens, it is the same, and nothing changes.
fn unreadable(runtime: &Runtime, tandem: &Tandem, count: usize) -> usize {
    let updating = LeanClient::new(&tandem.accounts_url("/graphql"), UPDATE);
    let reading = LeanClient::new(&tandem.accounts_url("/graphql"), REVISION);
    let step = (count / OPENED).max(1);
    let cards = customer_input("", "")["creditCards"].clone();
    runtime.block_on(async {
        let mut unreadable = 0;
        for number in (0..count).step_by(step) {
            let variables = json!({"id": id(number), "input": {"creditCards": cards}});
            updating.ask(variables).await;
            let answer = reading.ask(json!({"id": id(number)})).await;
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["data"]["customer"]["revision"] != 1 {
                unreadable += 1;
            }
        }
        unreadable
    })
}

pub fn measure(runtime: &Runtime, count: usize, on_servers: bool) {
    let ground = if on_servers {
        Ground::on_real_servers()
    } else {
        Ground::embedded()
    };
    let ground = ground.asking_for_signatures();
    ground.write_key(OLD);
    {
        let tandem = ground.start();
        fill(runtime, &tandem, count);
    }
    ground.write_key(&format!("{NEW}\n{OLD}"));
    let answer: Value = {
        let tandem = ground.start();
        let creators = Creators::begin(runtime, &tandem, "before");
        std::thread::sleep(BEFORE);
        let before = creators.end(runtime);
        let creators = Creators::begin(runtime, &tandem, "during");
        let begun = Instant::now();
        let mut rotation = tandem.begin(&["keys", "rotate", "--json"]);
        let status = rotation.wait_for_end(LIMIT);
        let taken = begun.elapsed();
        let (answer, errors) = rotation.all_output();
        assert!(status.success(), "{answer} {errors}");
        let during = creators.end(runtime);
        tandem.published(&Client::new());
        say!(
            "# the sealing key of {count} customers replaced in {:.1} s: {during:.0} creations a second by {CLIENTS} clients meanwhile, {before:.0} before, ratio {:.2}",
            taken.as_secs_f64(),
            during / before
        );
        serde_json::from_str(&answer).unwrap()
    };
    say!("{answer:#}");
    ground.write_key(NEW);
    let tandem = ground.start();
    say!(
        "with the new key alone: {} of {OPENED} cards do not open",
        unreadable(runtime, &tandem, count)
    );
}
