//! Subscribers of `orderFeed` that resume after their cursor, at any instance that accepts them. They record what they
//! received and how each of their connections ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{fleet::Fleet, poll_for};

/// How long a subscriber may take to receive everything.
const CAUGHT_UP: Duration = Duration::from_secs(180);
/// The longest silence: heartbeats come every 5 s.
const SILENCE: Duration = Duration::from_secs(45);

const FEED: &str = "subscription($customerId: ID, $after: String) {
    orderFeed(customerId: $customerId, after: $after, snapshot: true, heartbeatSeconds: 5) {
        __typename
        ... on OrderSnapshot { cursor previous orders { id revision } }
        ... on OrderUpdate { cursor previous order { id revision } }
        ... on Heartbeat { cursor previous } } }";

/// How a connection of a subscriber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The port announced its restart: close code 1012.
    Restart,
    /// An error that says where to resume, and then the end.
    Error,
    /// The connection broke off.
    Cut,
    /// The connection was refused, or broke off before anything arrived.
    NotOpened,
    /// Nothing arrived, not even a heartbeat.
    Silence,
    /// A normal end, as if the subscription were complete.
    Complete,
}

/// What a subscriber received.
#[derive(Default)]
pub struct Held {
    cursor: Option<String>,
    /// The newest revision of each order.
    pub orders: BTreeMap<String, i64>,
    ends: BTreeMap<End, usize>,
    /// Faults: items that were missed, repeated or out of order, and errors that do not say where to resume.
    pub faults: Vec<String>,
    pub items: usize,
    last: Option<Instant>,
    /// The longest time between two items.
    pause: Duration,
}

impl Held {
    /// Records how a connection ended. `before` is the number of items when it began.
    fn ended(&mut self, end: End, before: usize) {
        let end = match end {
            End::Cut if self.items == before => End::NotOpened,
            end => end,
        };
        *self.ends.entry(end).or_default() += 1;
    }

    /// Processes an item. Returns false if an earlier item was missed, so that the subscriber resumes after its cursor.
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
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.pause = self.pause.max(now - last);
        }
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

    /// Processes a response. `None` means that the connection goes on.
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

/// The id and revision of an order in a response.
pub fn read(order: &Value) -> (String, i64) {
    let id = order["id"].as_str().unwrap_or_default().to_owned();
    (id, order["revision"].as_i64().unwrap_or_default())
}

/// A subscriber that runs until the fleet ends.
pub struct Follower {
    pub held: Arc<Mutex<Held>>,
}

impl Follower {
    /// Follows the orders of one customer, or all, at this port of gateways. Every fourth follower uses server-sent
    /// events, the others WebSockets.
    pub fn start(fleet: &Fleet, number: usize, gateway: u16, customer: Option<String>) -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let (into, http) = (Arc::clone(&held), fleet.http.clone());
        fleet.runtime.spawn(async move {
            loop {
                let (after, before) = {
                    let held = into.lock().unwrap();
                    (held.cursor.clone(), held.items)
                };
                let operation =
                    json!({"query": FEED, "variables": {"customerId": customer, "after": after}});
                let end = if number % 4 == 3 {
                    by_events(&http, gateway, &operation, &into).await
                } else {
                    by_socket(gateway, &operation, &into).await
                };
                into.lock().unwrap().ended(end, before);
                // Staggered, so that not all reconnect at the same time.
                let pause = 100 + 20 * (number % 20);
                tokio::time::sleep(Duration::from_millis(pause as u64)).await;
            }
        });
        Self { held }
    }

    pub fn items(&self) -> usize {
        self.held.lock().unwrap().items
    }

    /// The longest time between two items since the last call.
    pub fn longest_pause(&self) -> Duration {
        std::mem::take(&mut self.held.lock().unwrap().pause)
    }

    /// Waits until the subscriber has received these orders, each with this revision or a newer one.
    #[track_caller]
    pub fn has<'a>(&self, expected: impl Iterator<Item = (&'a str, i64)> + Clone) {
        poll_for(CAUGHT_UP, "a subscriber has every change", || {
            let held = self.held.lock().unwrap();
            expected
                .clone()
                .all(|(id, revision)| held.orders.get(id).is_some_and(|held| *held >= revision))
                .then_some(())
        });
    }
}

/// How all connections have ended so far.
pub fn ends<'a>(followers: impl IntoIterator<Item = &'a Follower>) -> BTreeMap<End, usize> {
    let mut all = BTreeMap::new();
    for follower in followers {
        for (end, count) in &follower.held.lock().unwrap().ends {
            *all.entry(*end).or_default() += count;
        }
    }
    all
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
