//! Slow subscribers: they get an error that says where to resume, miss nothing when they resume, and delay nobody else.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio_tungstenite::tungstenite::{self, Message, client::IntoClientRequest};

use super::{slow::narrow, *};
use crate::support::{
    Subscription, Transport,
    graph::{PLACE, order_input},
    poll, poll_for,
};

/// How long orders may be placed until the buffer of a slow subscriber is full.
const FLOOD: Duration = Duration::from_secs(120);
/// All others have the last order within this time.
const PROMPT: Duration = Duration::from_secs(20);
/// A slow subscriber reads what its system has buffered, some KiB, and then pauses for this long.
const PAUSE: Duration = Duration::from_millis(50);

const TRANSPORTS: [Transport; 2] = [Transport::ServerSentEvents, Transport::WebSocket];

/// The feed of the customer's orders, with these additional fields of each order.
fn feed(more: &str) -> String {
    format!(
        "subscription($after: String) {{ orderFeed(customerId: \"slow\", after: $after, heartbeatSeconds: 5) {{ __typename
            ... on OrderUpdate {{ cursor previous order {{ id {more} }} }} ... on Heartbeat {{ cursor previous }} }} }}"
    )
}

/// The same with 32 KB per order, so that few of them fill the buffers of the connection.
fn large_feed() -> String {
    let items = (0..8).map(|number| format!("a{number}: items {{ product {{ description }} }} "));
    feed(&items.collect::<String>())
}

/// What a subscriber received.
#[derive(Default)]
struct Told {
    /// The cursor of the last item.
    cursor: String,
    orders: Vec<String>,
    /// Whether an item did not follow the previous one, because something on the way dropped items.
    has_missed: bool,
    /// The extensions of the error that ended it.
    end: Option<Value>,
}

impl Told {
    fn behind(cursor: &str) -> Self {
        Self {
            cursor: cursor.to_owned(),
            ..Self::default()
        }
    }

    /// Processes a response. Returns false after the last one, and if an item was missed before it.
    fn take(&mut self, response: &Value) -> bool {
        if !response["errors"].is_null() {
            self.end = Some(response["errors"][0]["extensions"].clone());
            return false;
        }
        let item = &response["data"]["orderFeed"];
        if item["previous"] != self.cursor.as_str() {
            self.has_missed = true;
            return false;
        }
        self.cursor = item["cursor"].as_str().unwrap().to_owned();
        let order = item["order"]["id"].as_str();
        self.orders.extend(order.map(str::to_owned));
        true
    }
}

/// A connection that is read slowly, until its subscriber hurries.
struct Drip {
    stream: TcpStream,
    hurries: Arc<AtomicBool>,
}

impl Drip {
    fn is_in_a_hurry(&self) -> bool {
        self.hurries.load(Ordering::Relaxed)
    }
}

impl Read for Drip {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.is_in_a_hurry() {
            thread::sleep(PAUSE);
        }
        self.stream.read(into)
    }
}

impl Write for Drip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A subscriber that reads slowly. It must read something, because one that reads nothing is disconnected without an
/// error.
struct Slow {
    transport: Transport,
    told: Arc<Mutex<Told>>,
    hurries: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Slow {
    fn start(transport: Transport, port: u16, after: &str) -> Self {
        let operation = json!({"query": large_feed(), "variables": {"after": after}});
        let told = Arc::new(Mutex::new(Told::behind(after)));
        let hurries = Arc::new(AtomicBool::new(false));
        let stream = Drip {
            stream: narrow(port),
            hurries: Arc::clone(&hurries),
        };
        let into = Arc::clone(&told);
        let thread = thread::spawn(move || match transport {
            Transport::WebSocket => by_socket(port, stream, &operation, &into),
            _ => by_events(port, stream, &operation, &into),
        });
        Self {
            transport,
            told,
            hurries,
            thread,
        }
    }

    fn orders(&self) -> usize {
        self.told.lock().unwrap().orders.len()
    }

    /// Reads as fast as possible from now on. Returns what it received in the end.
    fn finish(self) -> Told {
        self.hurries.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

fn by_events(port: u16, mut stream: Drip, operation: &Value, told: &Mutex<Told>) {
    let body = operation.to_string();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // Lines that begin chunks are among them. Each event is in one chunk.
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let response: Option<Value> = line
            .strip_prefix("data: ")
            .and_then(|data| serde_json::from_str(data).ok());
        let goes_on = response.is_none_or(|response| told.lock().unwrap().take(&response));
        if !goes_on {
            return;
        }
    }
}

fn by_socket(port: u16, stream: Drip, operation: &Value, told: &Mutex<Told>) {
    let mut request = format!("ws://127.0.0.1:{port}/graphql")
        .into_client_request()
        .unwrap();
    let protocol = "graphql-transport-ws".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = tungstenite::client(request, stream)
        .map_err(|error| error.to_string())
        .unwrap();
    let init = json!({"type": "connection_init"});
    socket.send(Message::text(init.to_string())).unwrap();
    loop {
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            other => panic!("it ended without a word: {other:?}"),
        };
        let said: Value = serde_json::from_str(&text).unwrap();
        let response = match said["type"].as_str() {
            Some("connection_ack") => {
                let subscribe = json!({"type": "subscribe", "id": "1", "payload": operation});
                socket.send(Message::text(subscribe.to_string())).unwrap();
                continue;
            }
            Some("next") => said["payload"].clone(),
            Some("error") => json!({"errors": said["payload"]}),
            _ => panic!("it ended without a word: {said}"),
        };
        if !told.lock().unwrap().take(&response) {
            return;
        }
        // The server's pings are queued behind unread data. This pong shows the server that the client is alive.
        if !socket.get_ref().is_in_a_hurry() {
            let _ = socket.send(Message::Pong(Vec::<u8>::new().into()));
        }
    }
}

/// A subscriber that reads everything at once.
struct Watcher<'a> {
    client: &'a Client,
    transport: Transport,
    url: &'a str,
    told: Told,
    subscription: Subscription,
}

impl<'a> Watcher<'a> {
    fn start(client: &'a Client, transport: Transport, url: &'a str, after: &str) -> Self {
        Self {
            client,
            transport,
            url,
            told: Told::behind(after),
            subscription: client.subscribe(transport, url, &feed(""), json!({"after": after})),
        }
    }

    /// Reads what has arrived. After a gap it resumes at its cursor, as described in `docs/live.md`.
    fn hear(&mut self) {
        while let Some(response) = self.subscription.next_within(Duration::from_millis(1)) {
            if self.told.take(&response) {
                continue;
            }
            let end = &self.told.end;
            assert!(end.is_none(), "{:?} {}: {end:?}", self.transport, self.url);
            self.told.has_missed = false;
            let after = json!({"after": self.told.cursor});
            self.subscription = self
                .client
                .subscribe(self.transport, self.url, &feed(""), after);
        }
    }
}

/// How often a port reports that a subscription was too slow.
fn lagged(port: u16) -> f64 {
    let scrape = get(port, "/actuator/prometheus", &[]).body;
    scrape
        .lines()
        .filter(|line| {
            line.starts_with("front_door_lagged_subscriptions_total")
                || line.starts_with("live_subscribers_lagged_total")
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Places orders until the condition holds, or for too long. Returns their ids.
fn flood(tandem: &Tandem, is_enough: impl Fn() -> bool) -> Vec<String> {
    let url = tandem.orders_url("/graphql");
    let mut input = order_input("slow");
    input["items"][0]["product"]["description"] = "x".repeat(4_000).into();
    let (placed, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let begun = Instant::now();
    let goes_on = || !stop.load(Ordering::Relaxed) && begun.elapsed() < FLOOD;
    let is_full = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = Client::new();
                while goes_on() {
                    let data = client.data(&url, PLACE, json!({"input": input}));
                    let id = data["placeOrder"]["order"]["id"].as_str().unwrap();
                    placed.lock().unwrap().push(id.to_owned());
                }
            });
        }
        let mut is_full = false;
        while !is_full && goes_on() {
            thread::sleep(Duration::from_millis(100));
            is_full = is_enough();
        }
        stop.store(true, Ordering::Relaxed);
        is_full
    });
    let placed = placed.into_inner().unwrap();
    assert!(is_full, "{} orders were not enough", placed.len());
    placed
}

#[test]
fn a_subscriber_that_reads_slowly_is_told_where_to_go_on_and_slows_nobody_down() {
    for is_gateway in [false, true] {
        let tandem = Tandem::start();
        let client = Client::new();
        tandem.customer(&client, "slow");
        let (name, port) = if is_gateway {
            ("gateway", tandem.gateway)
        } else {
            ("orders", tandem.orders)
        };
        let url = format!("http://127.0.0.1:{port}/graphql");
        let snapshot = "subscription { orderFeed(customerId: \"slow\", snapshot: true) { ... on OrderSnapshot { cursor } } }";
        let first = client
            .subscribe(Transport::ServerSentEvents, &url, snapshot, json!({}))
            .next();
        let begin = first["data"]["orderFeed"]["cursor"].as_str().unwrap();
        let slow = TRANSPORTS.map(|transport| Slow::start(transport, port, begin));
        let mut watchers =
            TRANSPORTS.map(|transport| Watcher::start(&client, transport, &url, begin));
        let mut placed = vec![tandem.order(&client, "slow")];
        poll("everybody listens", || {
            watchers.iter_mut().for_each(Watcher::hear);
            let orders = slow.iter().map(Slow::orders);
            let all = orders.chain(watchers.iter().map(|watcher| watcher.told.orders.len()));
            (all.min() == Some(1)).then_some(())
        });

        // Behind the gateway, orders itself may be the first to end the subscription.
        let too_slow = || {
            lagged(port)
                + if is_gateway {
                    lagged(tandem.orders)
                } else {
                    0.0
                }
        };
        placed.extend(flood(&tandem, || too_slow() > 1.5));
        placed.sort_unstable();
        poll_for(
            PROMPT,
            "whoever reads has every order, while others are slow",
            || {
                watchers.iter_mut().for_each(Watcher::hear);
                let mut all = watchers.iter();
                all.all(|watcher| watcher.told.orders.len() >= placed.len())
                    .then_some(())
            },
        );
        for watcher in &mut watchers {
            watcher.told.orders.sort_unstable();
            assert_eq!(watcher.told.orders, placed, "{name}");
        }

        for slow in slow {
            let what = format!("{name}, {:?}", slow.transport);
            let transport = slow.transport;
            let Told {
                cursor,
                mut orders,
                has_missed,
                end,
            } = slow.finish();
            let after: &str = match &end {
                Some(end) => {
                    assert_eq!(end["code"], "SUBSCRIPTION_LAGGED", "{what}: {end}");
                    end["cursor"].as_str().unwrap()
                }
                // The router may drop items for a slow client. The next item then shows the gap.
                None => {
                    assert!(is_gateway && has_missed, "{what}: ended without a word");
                    &cursor
                }
            };
            println!("{what}: {} of {} orders", orders.len(), placed.len());
            assert!(orders.len() < placed.len(), "{what}");
            let mut resumed = Watcher::start(&client, transport, &url, after);
            poll("it has the rest", || {
                resumed.hear();
                let all = orders.len() + resumed.told.orders.len();
                (all >= placed.len()).then_some(())
            });
            orders.append(&mut resumed.told.orders);
            orders.sort_unstable();
            assert_eq!(orders, placed, "{what}");
        }
        all_answer(&tandem);
    }
}
