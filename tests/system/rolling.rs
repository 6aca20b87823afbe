//! A rolling restart under subscribers: orders and gateways go and come back one by one while orders change. Each subscriber is told to
//! go, goes on behind its cursor, and has each change once, in order, and none too few.
//!
//! `TANDEM_ROLLING_SUBSCRIBERS` says how many (100 if it is not set; a release build takes 1,000 on two processors).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};
use tandem_backends::require;
use tokio_tungstenite::tungstenite::{
    Message,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::support::{
    Client, Signal,
    fleet::Fleet,
    graph::{ADVANCE, CREATE, PLACE, customer_input, order_input},
    poll, poll_for,
};

/// Customers, each followed by a part of the subscribers.
const CUSTOMERS: usize = 20;
/// Changes that are acknowledged before the next process goes.
const CHANGES: usize = 60;
/// How long a subscriber may take to have everything behind the last restart.
const CAUGHT_UP: Duration = Duration::from_secs(180);
/// The longest silence: heartbeats come every 5 s.
const SILENCE: Duration = Duration::from_secs(45);

const FEED: &str = "subscription($customerId: ID, $after: String) {
    orderFeed(customerId: $customerId, after: $after, snapshot: true, heartbeatSeconds: 5) {
        __typename
        ... on OrderSnapshot { cursor previous orders { id revision } }
        ... on OrderUpdate { cursor previous order { id revision } }
        ... on Heartbeat { cursor previous } } }";

/// How one connection of a subscriber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum End {
    /// The port said that it restarts: close code 1012.
    Restart,
    /// An error, which says where to go on, and then the end.
    Error,
    /// It broke off.
    Cut,
    /// It was not taken, or broke off before anything came.
    NotOpened,
    /// Nothing came, not even a heartbeat.
    Silence,
    /// The end, as if all had been told.
    Complete,
}

#[derive(Default)]
struct Held {
    cursor: Option<String>,
    orders: BTreeMap<String, i64>,
    ends: BTreeMap<End, usize>,
    /// What must not be.
    faults: Vec<String>,
    items: usize,
}

impl Held {
    /// Notes how a connection ended that began when there were so many items.
    fn ended(&mut self, end: End, before: usize) {
        let end = match end {
            End::Cut if self.items == before => End::NotOpened,
            end => end,
        };
        *self.ends.entry(end).or_default() += 1;
    }

    /// Takes an item. Answers false if one was missed before it: the subscriber resumes behind its cursor.
    fn take(&mut self, item: &Value) -> bool {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        if let Some(cursor) = &self.cursor
            && *cursor != text("previous")
        {
            self.faults.push(format!("{item} does not follow {cursor}"));
            return false;
        }
        self.cursor = Some(text("cursor"));
        self.items += 1;
        for order in item["orders"].as_array().into_iter().flatten() {
            let (id, revision) = read(order);
            if let Some(before) = self.orders.insert(id.clone(), revision) {
                let fault = format!("{id} was at {before} and is in the snapshot at {revision}");
                self.faults.push(fault);
            }
        }
        if item["order"].is_object() {
            let (id, revision) = read(&item["order"]);
            let before = self.orders.insert(id.clone(), revision).unwrap_or(0);
            if before + 1 != revision {
                self.faults
                    .push(format!("{id} is told at {revision} behind {before}"));
            }
        }
        true
    }

    /// Takes a response. `None` to go on.
    fn hear(&mut self, response: &Value) -> Option<End> {
        if !response["errors"].is_null() {
            let extensions = &response["errors"][0]["extensions"];
            let is_passing = ["UNAVAILABLE", "SUBSCRIPTION_LAGGED", "RATE_LIMITED"]
                .iter()
                .any(|code| extensions["code"] == *code);
            if !is_passing {
                self.faults.push(response.to_string());
            }
            return Some(End::Error);
        }
        let is_next = self.take(&response["data"]["orderFeed"]);
        (!is_next).then_some(End::Error)
    }
}

fn read(order: &Value) -> (String, i64) {
    let id = order["id"].as_str().unwrap_or_default().to_owned();
    (id, order["revision"].as_i64().unwrap_or_default())
}

struct Subscriber {
    customer: String,
    held: Arc<Mutex<Held>>,
}

impl Subscriber {
    fn start(fleet: &Fleet, number: usize, gateway: u16, http: &reqwest::Client) -> Self {
        let customer = customer(number % CUSTOMERS);
        let held = Arc::new(Mutex::new(Held::default()));
        let (of, into, http) = (customer.clone(), Arc::clone(&held), http.clone());
        fleet.runtime.spawn(async move {
            loop {
                let (after, before) = {
                    let held = into.lock().unwrap();
                    (held.cursor.clone(), held.items)
                };
                let operation =
                    json!({"query": FEED, "variables": {"customerId": of, "after": after}});
                let end = if number % 4 == 3 {
                    by_events(&http, gateway, &operation, &into).await
                } else {
                    by_socket(gateway, &operation, &into).await
                };
                into.lock().unwrap().ended(end, before);
                // Not all at once.
                let pause = 100 + 20 * (number % 20);
                tokio::time::sleep(Duration::from_millis(pause as u64)).await;
            }
        });
        Self { customer, held }
    }
}

async fn by_socket(gateway: u16, operation: &Value, held: &Mutex<Held>) -> End {
    let address = format!("ws://127.0.0.1:{gateway}/graphql");
    let mut handshake = address.into_client_request().unwrap();
    let protocol = "graphql-transport-ws".parse().unwrap();
    handshake
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let Ok((mut socket, _)) = tokio_tungstenite::connect_async(handshake).await else {
        return End::Cut;
    };
    let init = json!({"type": "connection_init"}).to_string();
    if socket.send(Message::text(init)).await.is_err() {
        return End::Cut;
    }
    loop {
        let message = match tokio::time::timeout(SILENCE, socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(_) => return End::Cut,
            Err(_) => return End::Silence,
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Close(Some(CloseFrame {
                code: CloseCode::Restart,
                ..
            })) => return End::Restart,
            Message::Close(frame) => {
                held.lock().unwrap().faults.push(format!("{frame:?}"));
                return End::Cut;
            }
            _ => continue,
        };
        let said: Value = serde_json::from_str(&text).unwrap();
        let reply = match said["type"].as_str() {
            Some("connection_ack") => {
                json!({"type": "subscribe", "id": "1", "payload": operation})
            }
            Some("ping") => json!({"type": "pong"}),
            Some("next") => match held.lock().unwrap().hear(&said["payload"]) {
                Some(end) => return end,
                None => continue,
            },
            Some("error") => {
                let response = json!({"errors": said["payload"]});
                let end = held.lock().unwrap().hear(&response);
                return end.unwrap_or(End::Error);
            }
            _ => return End::Complete,
        };
        if socket.send(Message::text(reply.to_string())).await.is_err() {
            return End::Cut;
        }
    }
}

async fn by_events(
    http: &reqwest::Client,
    gateway: u16,
    operation: &Value,
    held: &Mutex<Held>,
) -> End {
    let request = http
        .post(format!("http://127.0.0.1:{gateway}/graphql"))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "text/event-stream")
        .body(operation.to_string());
    let Ok(answer) = request.send().await else {
        return End::Cut;
    };
    let mut body = answer.bytes_stream();
    let mut text = String::new();
    loop {
        match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(chunk))) => text.push_str(&String::from_utf8_lossy(&chunk)),
            Ok(_) => return End::Cut,
            Err(_) => return End::Silence,
        }
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            if event.starts_with("event: complete") {
                return End::Complete;
            }
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            let Some(response) = data.and_then(|data| serde_json::from_str(data).ok()) else {
                continue;
            };
            if let Some(end) = held.lock().unwrap().hear(&response) {
                return end;
            }
        }
    }
}

fn customer(number: usize) -> String {
    format!("rolling-{number}")
}

/// Places and advances orders of all customers until it is stopped; answers the newest acknowledged revision of each order.
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
        // Nobody hammers a system that is away.
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
    let http = reqwest::Client::new();
    let subscribers: Vec<Subscriber> = (0..count)
        .map(|number| Subscriber::start(&fleet, number, front, &http))
        .collect();
    poll("everybody has a snapshot", || {
        let all = |it: &Subscriber| it.held.lock().unwrap().items > 0;
        subscribers.iter().all(all).then_some(())
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
            // What is told to stop says so to its subscribers. Of 300 connections 6 have been seen to break off all the same, of a cause that
            // is not found yet: they go on behind their cursors like the others, and most must not.
            let cut = |ends: &BTreeMap<End, usize>| ends.get(&End::Cut).copied().unwrap_or(0);
            let all: usize = told.values().sum();
            assert!(20 * (cut(&told) - cut(&before)) <= all, "{told:?}");
            assert!(told.contains_key(&End::Restart) && told.contains_key(&End::Error));
        }
    }
    let acknowledged = writer.finish();
    for subscriber in &subscribers {
        let expected: Vec<(&String, i64)> = acknowledged
            .iter()
            .filter(|(_, (customer, _))| *customer == subscriber.customer)
            .map(|(id, (_, revision))| (id, *revision))
            .collect();
        poll_for(CAUGHT_UP, "a subscriber has every change", || {
            let held = subscriber.held.lock().unwrap();
            expected
                .iter()
                .all(|(id, revision)| held.orders.get(*id).is_some_and(|held| held >= revision))
                .then_some(())
        });
        let held = subscriber.held.lock().unwrap();
        assert!(held.faults.is_empty(), "{:#?}", held.faults);
    }
    let ends = ends(&subscribers);
    assert_eq!(ends.get(&End::Complete), None, "{ends:?}");
    assert_eq!(ends.get(&End::Silence), None, "{ends:?}");
    let items: usize = subscribers
        .iter()
        .map(|it| it.held.lock().unwrap().items)
        .sum();
    println!(
        "{count} subscribers, {} orders, {items} items, connections ended by {ends:?}",
        acknowledged.len()
    );
}

/// How all connections have ended so far.
fn ends(subscribers: &[Subscriber]) -> BTreeMap<End, usize> {
    let mut all = BTreeMap::new();
    for subscriber in subscribers {
        for (end, count) in &subscriber.held.lock().unwrap().ends {
            *all.entry(*end).or_default() += count;
        }
    }
    all
}
