//! A live subscriber that resumes after each break, and the check of what it received in the end.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::super::support::{Client, Transport};

pub const ORDER_UPDATED: &str = "subscription($after: String) {
    orderUpdated(after: $after) { cursor type order { id revision } } }";

/// A subscriber that receives nothing for this long, although orders change, reconnects.
const SILENCE: Duration = Duration::from_secs(20);

/// The order in which the changes of one order must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// Always in the order in which they were made.
    Strict,
    /// Partitions were added: there is no order between an order's events in its old partition and in its new one.
    LooseBetweenPartitions,
}

/// What a subscriber received, over all its connections.
#[derive(Debug, Default)]
struct Heard {
    cursor: String,
    /// The revisions of each order.
    revisions: HashMap<String, BTreeSet<i64>>,
    updates: u64,
    connections: u64,
    /// Connections that stayed open and delivered nothing.
    silences: u64,
    out_of_order: Vec<String>,
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
        let revisions = self.revisions.entry(id.clone()).or_default();
        let newest = revisions.last().copied().unwrap_or_default();
        let told = || {
            format!(
                "connection {}: revision {revision} of {id} after {newest}",
                self.connections
            )
        };
        if revisions.contains(&revision) {
            self.faults.push(told());
        } else if revision != newest + 1 {
            self.out_of_order.push(told());
        }
        revisions.insert(revision);
    }

    /// The events of the topic that were not received.
    fn missing(&self, told: &HashMap<String, i64>) -> Vec<String> {
        let none = BTreeSet::new();
        told.iter()
            .filter_map(|(id, newest)| {
                let heard = self.revisions.get(id).unwrap_or(&none);
                let first = (1..=*newest).find(|revision| !heard.contains(revision))?;
                Some(format!("{id}: {first} of {newest}"))
            })
            .collect()
    }
}

/// Subscribes to all orders from a cursor, and resumes with the newest cursor after each break.
pub struct Subscriber {
    name: &'static str,
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Subscriber {
    pub fn start(name: &'static str, transport: Transport, url: String, cursor: &str) -> Self {
        let heard = Arc::new(Mutex::new(Heard {
            cursor: cursor.to_owned(),
            ..Heard::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = thread::spawn(move || listen(transport, &url, &shared, &ends));
        Self {
            name,
            heard,
            stop,
            thread,
        }
    }

    /// Waits until it has received everything on the topic, then stops it.
    pub fn finish(self, told: &HashMap<String, i64>, sequence: Sequence) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let missing = loop {
            let missing = self.heard.lock().unwrap().missing(told);
            if missing.is_empty() || Instant::now() > deadline {
                break missing;
            }
            thread::sleep(Duration::from_millis(50));
        };
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let heard = self.heard.lock().unwrap();
        println!(
            "subscriber by {}: {} updates over {} connections, {} of them fell silent, {} updates between partitions out of order",
            self.name,
            heard.updates,
            heard.connections,
            heard.silences,
            heard.out_of_order.len()
        );
        let mut faults = heard.faults.clone();
        if sequence == Sequence::Strict {
            faults.extend(heard.out_of_order.iter().cloned());
        }
        assert!(faults.is_empty(), "{}: {faults:#?}", self.name);
        assert!(
            missing.is_empty(),
            "{} did not hear {missing:#?}",
            self.name
        );
    }
}

fn listen(transport: Transport, url: &str, shared: &Mutex<Heard>, ends: &AtomicBool) {
    let client = Client::new();
    while !ends.load(Ordering::Relaxed) {
        let after = {
            let mut heard = shared.lock().unwrap();
            heard.connections += 1;
            heard.cursor.clone()
        };
        let subscription = client.subscribe(transport, url, ORDER_UPDATED, json!({"after": after}));
        let mut last = Instant::now();
        while !ends.load(Ordering::Relaxed) {
            match subscription.poll(Duration::from_millis(100)) {
                Ok(Some(payload)) if payload["data"]["orderUpdated"].is_object() => {
                    last = Instant::now();
                    let update = &payload["data"]["orderUpdated"];
                    shared.lock().unwrap().take(update);
                }
                Ok(Some(payload)) => {
                    // Unavailability is expected. A refusal of the subscriber's own cursor is a fault.
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
}
