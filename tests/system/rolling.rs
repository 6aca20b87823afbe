//! A rolling restart with subscribers: instances of orders and gateways are restarted one by one while orders change.
//! Each subscriber is told to reconnect, resumes after its cursor, and gets each change once and in order.
//!
//! `TANDEM_ROLLING_SUBSCRIBERS` sets how many (100 by default; a release build handles 1,000 on two processors).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Signal,
    fleet::Fleet,
    follower::{End, Follower, ends, read},
    graph::{ADVANCE, CREATE, PLACE, customer_input, order_input},
    poll,
};

/// The subscribers are divided among these customers.
const CUSTOMERS: usize = 20;
/// Changes that must be acknowledged before the next process is restarted.
const CHANGES: usize = 60;
fn customer(number: usize) -> String {
    format!("rolling-{number}")
}

/// Places and advances orders of all customers until it is stopped. Returns the newest acknowledged revision of each
/// order.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<HashMap<String, (String, i64)>>>,
    count: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(url: &str) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let count = Arc::new(AtomicUsize::new(0));
        let threads = (0..2)
            .map(|thread| {
                let (stop, url) = (Arc::clone(&stop), url.to_owned());
                let (acknowledged, count) = (Arc::clone(&acknowledged), Arc::clone(&count));
                std::thread::spawn(move || {
                    let client = Client::new();
                    let mut number = thread;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        write(&client, &url, number % CUSTOMERS, &acknowledged, &count);
                    }
                })
            })
            .collect();
        Self {
            stop,
            acknowledged,
            count,
            threads,
        }
    }

    #[track_caller]
    fn goes_on(&self) {
        let from = self.count.load(Ordering::Relaxed);
        poll("writes are acknowledged", || {
            (self.count.load(Ordering::Relaxed) >= from + CHANGES).then_some(())
        });
    }

    fn finish(self) -> HashMap<String, (String, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.acknowledged.lock().unwrap().clone()
    }
}

fn write(
    client: &Client,
    url: &str,
    of: usize,
    acknowledged: &Mutex<HashMap<String, (String, i64)>>,
    count: &AtomicUsize,
) {
    let customer = customer(of);
    let send = |operation: &str, variables: Value| -> Option<Value> {
        let answer = client.try_graphql(url, operation, variables).ok()?;
        let data = answer["data"].as_object()?.values().next()?["order"].clone();
        let (id, revision) = data.is_object().then(|| read(&data))?;
        acknowledged
            .lock()
            .unwrap()
            .insert(id, (customer.clone(), revision));
        count.fetch_add(1, Ordering::Relaxed);
        Some(data)
    };
    let placed = send(PLACE, json!({"input": order_input(&customer)}));
    let Some(placed) = placed else {
        // A pause, so that a system that is down is not flooded.
        std::thread::sleep(Duration::from_millis(50));
        return;
    };
    for to in ["CONFIRMED", "SHIPPED"] {
        if send(ADVANCE, json!({"id": placed["id"], "to": to})).is_none() {
            return;
        }
    }
}

#[test]
fn a_rolling_restart_of_orders_and_gateways_is_not_seen_by_subscribers() {
    require!(mongod, kafka);
    let count = std::env::var("TANDEM_ROLLING_SUBSCRIBERS");
    let count: usize = count.map_or(100, |count| count.parse().unwrap());
    let fleet = Fleet::new();
    let accounts = fleet.instance("accounts");
    let mut orders = [fleet.instance("orders"), fleet.instance("orders")];
    let behind = fleet.forwarder(&[orders[0].port, orders[1].port]);
    let orders_url = format!("http://127.0.0.1:{behind}");
    let mut gateways = [
        fleet.gateway(&accounts.url, &orders_url),
        fleet.gateway(&accounts.url, &orders_url),
    ];
    let front = fleet.forwarder(&[gateways[0].port, gateways[1].port]);
    let client = Client::new();
    for number in 0..CUSTOMERS {
        let input = customer_input(&customer(number), "Lovelace");
        client.data(&accounts.graphql(), CREATE, json!({"input": input}));
    }
    for instance in &orders {
        poll("orders knows the customers", || {
            let id = customer(CUSTOMERS - 1);
            let read = format!("{{ orderingCustomer(id: {id:?}) {{ name {{ lastName }} }} }}");
            let answer = client.graphql(&instance.graphql(), &read, json!({}));
            answer["data"]["orderingCustomer"]["name"]
                .is_object()
                .then_some(())
        });
    }
    let subscribers: Vec<Follower> = (0..count)
        .map(|number| Follower::start(&fleet, number, front, Some(customer(number % CUSTOMERS))))
        .collect();
    poll("everybody has a snapshot", || {
        subscribers.iter().all(|it| it.items() > 0).then_some(())
    });

    let writer = Writer::start(&format!("http://127.0.0.1:{front}/graphql"));
    writer.goes_on();
    let early = ends(&subscribers);
    assert!(early.is_empty(), "nothing was restarted yet: {early:?}");
    for signal in [Signal::TERM, Signal::KILL] {
        let before = ends(&subscribers);
        for instance in orders.iter_mut().chain(&mut gateways) {
            fleet.restart(instance, signal);
            writer.goes_on();
        }
        let told = ends(&subscribers);
        println!("{signal:?}: {told:?}");
        if signal == Signal::TERM {
            // A process that is told to stop announces that to each of its subscribers.
            let cut = |ends: &BTreeMap<End, usize>| ends.get(&End::Cut).copied().unwrap_or(0);
            assert_eq!(cut(&told), cut(&before), "{told:?}");
            assert!(told.contains_key(&End::Restart) && told.contains_key(&End::Error));
        }
    }
    let acknowledged = writer.finish();
    for (number, subscriber) in subscribers.iter().enumerate() {
        let own = customer(number % CUSTOMERS);
        let expected = acknowledged.iter();
        subscriber.has(
            expected
                .filter(|(_, (customer, _))| *customer == own)
                .map(|(id, (_, revision))| (id.as_str(), *revision)),
        );
        let held = subscriber.held.lock().unwrap();
        assert!(held.faults.is_empty(), "{:#?}", held.faults);
    }
    let ends = ends(&subscribers);
    assert_eq!(ends.get(&End::Complete), None, "{ends:?}");
    assert_eq!(ends.get(&End::Silence), None, "{ends:?}");
    let items: usize = subscribers.iter().map(Follower::items).sum();
    println!(
        "{count} subscribers, {} orders, {items} items, connections ended by {ends:?}",
        acknowledged.len()
    );
}
