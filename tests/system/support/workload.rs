//! Creates and changes customers, and places, advances and cancels orders, with several concurrent clients. Records
//! every response, so that [`super::checker`] can check that the system has kept what it acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Client,
    graph::{ADVANCE, CREATE, PLACE, UPDATE, customer_input, order_input},
};

const CANCEL: &str = "mutation($id: ID!) { cancelOrder(id: $id) { order { id status revision } } }";

/// Where the clients send their commands, in turn.
#[derive(Clone, Debug)]
pub struct Targets {
    pub accounts: Vec<String>,
    pub orders: Vec<String>,
}

/// What the system acknowledged.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Customers, with the newest acknowledged revision.
    pub customers: HashMap<String, i64>,
    /// Orders, with the newest acknowledged revision and the status it had.
    pub orders: HashMap<String, (i64, String)>,
    /// How many commands were sent for each customer. Its revision cannot be greater.
    pub sent_customers: HashMap<String, i64>,
    /// How many commands were sent for each acknowledged order.
    pub sent_orders: HashMap<String, i64>,
    /// How many orders were sent for each customer. It cannot have more.
    pub sent_placings: HashMap<String, i64>,
    /// The last name of each customer at its newest acknowledged revision.
    pub names: HashMap<String, (i64, String)>,
    /// Commands that were acknowledged.
    pub acknowledged: u64,
    /// Commands that were refused or not answered. Each of them was executed completely or not at all.
    pub unanswered: u64,
}

/// A running workload. It stops when it is finished or dropped.
pub struct Workload {
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts `clients` threads. The prefix separates the ids of several workloads. The seed makes the choice of
    /// commands repeatable, but not the system's reaction.
    pub fn start(prefix: &str, seed: u64, clients: usize, targets: &Targets) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let history = Arc::new(Mutex::new(History::default()));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|number| {
                let worker = Worker {
                    prefix: format!("{prefix}-{number}"),
                    random: Random::new(
                        seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    ),
                    client: Client::new(),
                    targets: targets.clone(),
                    history: Arc::clone(&history),
                    acknowledged: Arc::clone(&acknowledged),
                    customers: Vec::new(),
                    orders: Vec::new(),
                };
                let stop = Arc::clone(&stop);
                thread::spawn(move || worker.run(&stop))
            })
            .collect();
        Self {
            stop,
            history,
            acknowledged,
            threads,
        }
    }

    /// How many commands have been acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more commands are acknowledged.
    #[track_caller]
    pub fn goes_on(&self, more: u64) {
        let from = self.acknowledged();
        super::poll(&format!("{more} more acknowledged commands"), || {
            (self.acknowledged() >= from + more).then_some(())
        });
    }

    /// Stops the workload and returns what was acknowledged.
    pub fn finish(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        let history = self.history.lock().unwrap().clone();
        println!(
            "workload: {} acknowledged, {} not, {} customers, {} orders",
            history.acknowledged,
            history.unanswered,
            history.customers.len(),
            history.orders.len()
        );
        history
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014). It suffices to choose commands, and its seed makes it repeatable.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

struct Worker {
    prefix: String,
    random: Random,
    client: Client,
    targets: Targets,
    history: Arc<Mutex<History>>,
    acknowledged: Arc<AtomicU64>,
    customers: Vec<String>,
    orders: Vec<String>,
}

impl Worker {
    fn run(mut self, stop: &AtomicBool) {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let choice = self.random.below(100);
            let done = if self.customers.is_empty() || choice < 30 {
                self.create(number)
            } else if choice < 60 {
                self.update(number)
            } else if self.orders.is_empty() || choice < 85 {
                self.place()
            } else if choice < 95 {
                self.change_order(ADVANCE, Some("CONFIRMED"))
            } else {
                self.change_order(CANCEL, None)
            };
            let mut history = self.history.lock().unwrap();
            if done {
                history.acknowledged += 1;
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                history.unanswered += 1;
                drop(history);
                // A pause, so that a system that is down is not flooded.
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn send(&mut self, accounts: bool, operation: &str, variables: Value) -> Option<Value> {
        let targets = if accounts {
            &self.targets.accounts
        } else {
            &self.targets.orders
        };
        let url = &targets[self.random.below(targets.len())];
        let response = self.client.try_graphql(url, operation, variables).ok()?;
        (response["errors"].is_null() && response["data"].is_object())
            .then(|| response["data"].clone())
    }

    fn create(&mut self, number: u64) -> bool {
        let id = format!("{}-{number}", self.prefix);
        let input = customer_input(&id, "Lovelace");
        self.note_sent(|history| &mut history.sent_customers, &id);
        let Some(data) = self.send(true, CREATE, json!({"input": input})) else {
            return false;
        };
        let revision = data["createCustomer"]["customer"]["revision"]
            .as_i64()
            .unwrap();
        self.note_customer(&id, revision, "Lovelace");
        self.customers.push(id);
        true
    }

    fn update(&mut self, number: u64) -> bool {
        let id = self.customers[self.random.below(self.customers.len())].clone();
        let name = format!("Name{number}");
        let input = json!({"name": {"firstName": "Ada", "lastName": name}});
        self.note_sent(|history| &mut history.sent_customers, &id);
        let Some(data) = self.send(true, UPDATE, json!({"id": id, "input": input})) else {
            return false;
        };
        let revision = data["updateCustomer"]["customer"]["revision"]
            .as_i64()
            .unwrap();
        self.note_customer(&id, revision, &name);
        true
    }

    fn place(&mut self) -> bool {
        let customer = self.customers[self.random.below(self.customers.len())].clone();
        self.note_sent(|history| &mut history.sent_placings, &customer);
        // An order for a customer that orders does not know yet is refused. That is not a fault, and no order is
        // placed.
        let Some(data) = self.send(false, PLACE, json!({"input": order_input(&customer)})) else {
            return false;
        };
        let order = &data["placeOrder"]["order"];
        let id = order["id"].as_str().unwrap().to_owned();
        self.note_sent(|history| &mut history.sent_orders, &id);
        self.orders.push(id);
        self.note_order(order);
        true
    }

    fn change_order(&mut self, operation: &str, to: Option<&str>) -> bool {
        // Each order is advanced by one step only. The rules would refuse a second step.
        let id = self
            .orders
            .swap_remove(self.random.below(self.orders.len()));
        self.note_sent(|history| &mut history.sent_orders, &id);
        let Some(data) = self.send(false, operation, json!({"id": id, "to": to})) else {
            return false;
        };
        let changed = data.get("advanceOrder").or_else(|| data.get("cancelOrder"));
        self.note_order(&changed.unwrap()["order"]);
        true
    }

    /// Counts a command before it is sent, because its outcome is known only if it is answered.
    fn note_sent(&self, which: impl Fn(&mut History) -> &mut HashMap<String, i64>, id: &str) {
        let mut history = self.history.lock().unwrap();
        *which(&mut history).entry(id.to_owned()).or_default() += 1;
    }

    fn note_customer(&self, id: &str, revision: i64, name: &str) {
        let mut history = self.history.lock().unwrap();
        history
            .names
            .insert(id.to_owned(), (revision, name.to_owned()));
        let known = history.customers.entry(id.to_owned()).or_default();
        *known = revision.max(*known);
    }

    fn note_order(&self, order: &Value) {
        let id = order["id"].as_str().unwrap().to_owned();
        let revision = order["revision"].as_i64().unwrap();
        let status = order["status"].as_str().unwrap().to_owned();
        self.history
            .lock()
            .unwrap()
            .orders
            .insert(id, (revision, status));
    }
}
