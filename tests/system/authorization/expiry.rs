//! Long connections: a token that expires ends its subscriptions and says so, on every transport; a new one goes on where the old one
//! ended, on the same socket or on another.

use std::cell::RefCell;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client::IntoClientRequest};

use super::{OWN, PLACE, World, code, order};
use crate::support::{Client, LIMIT, Transport, poll};

const UPDATES: &str =
    "subscription($after: String) { orderUpdated(after: $after) { cursor type order { id } } }";
/// How long tokens are good, in seconds: the next one where the machine is too slow for the one before.
const LIVES: [u64; 4] = [4, 16, 60, 240];

/// What a subscription brought whose token ended meanwhile.
struct Ended {
    orders: Vec<Value>,
    cursor: Value,
    /// The last response.
    end: Value,
}

fn until_expired(
    world: &World,
    mut open: impl FnMut(String) -> Box<dyn FnMut() -> Value>,
) -> Ended {
    for life in LIVES {
        let token = world.tandem.token_for(OWN, "self", &format!("{life}s"));
        let mut next = open(token);
        let (mut orders, mut last) = (Vec::new(), None);
        let end = loop {
            let response = next();
            if code(&response).is_some() {
                break response;
            }
            let update = &response["data"]["orderUpdated"];
            orders.push(update["order"]["id"].clone());
            last = Some(update["cursor"].clone());
        };
        if let Some(cursor) = last {
            return Ended {
                orders,
                cursor,
                end,
            };
        }
    }
    panic!("no event came within {LIVES:?} s");
}

/// A cursor.
fn begin(world: &World) -> Value {
    let url = world.tandem.orders_url("/graphql");
    let updates = world
        .admin
        .subscribe(Transport::ServerSentEvents, &url, UPDATES, json!({}));
    let event = poll("an update arrives", || {
        place(world);
        updates.next_within(Duration::from_secs(1))
    });
    event["data"]["orderUpdated"]["cursor"].clone()
}

/// Takes responses until all these orders came, and fails where one came twice. Others may have been on their way at the beginning.
fn take_all(placed: &[Value], orders: &mut Vec<Value>, mut next: impl FnMut() -> Value) {
    while !placed.iter().all(|id| orders.contains(id)) {
        let response = next();
        assert!(response["errors"].is_null(), "{response}");
        orders.push(response["data"]["orderUpdated"]["order"]["id"].clone());
    }
    for id in placed {
        let times = orders.iter().filter(|order| *order == id).count();
        assert_eq!(times, 1, "{id} came {times} times");
    }
}

fn place(world: &World) -> Value {
    let placed = world
        .admin
        .data(&world.gateway(), PLACE, json!({"input": order(OWN)}));
    placed["placeOrder"]["order"]["id"].clone()
}

#[test]
fn a_token_that_expires_ends_its_subscriptions_and_the_cursor_goes_on_without_a_gap() {
    let world = World::start();
    let ports = [world.gateway(), world.tandem.orders_url("/graphql")];
    let begin = begin(&world);
    let mut placed = vec![place(&world)];
    for url in &ports {
        for transport in [
            Transport::ServerSentEvents,
            Transport::Multipart,
            Transport::WebSocket,
        ] {
            let Ended {
                mut orders,
                cursor,
                end,
            } = until_expired(&world, |token| {
                let client = Client::with_token(token);
                let subscription =
                    client.subscribe(transport, url, UPDATES, json!({"after": begin}));
                Box::new(move || {
                    let _alive = &client;
                    subscription.next()
                })
            });
            assert_eq!(
                code(&end),
                Some("UNAUTHENTICATED"),
                "{transport:?} {url}: {end}"
            );
            assert_eq!(
                end["errors"][0]["extensions"]["cursor"], cursor,
                "{transport:?} {url}: {end}"
            );

            placed.push(place(&world));
            let client = Client::with_token(world.tandem.token(OWN, "self"));
            let resumed = client.subscribe(transport, url, UPDATES, json!({"after": cursor}));
            take_all(&placed, &mut orders, || resumed.next());
        }
    }
}

#[test]
fn a_token_is_renewed_on_an_open_socket_of_either_protocol() {
    let world = World::start();
    let begin = begin(&world);
    let mut placed = vec![place(&world)];
    for port in [world.tandem.gateway, world.tandem.orders] {
        for protocol in ["graphql-transport-ws", "graphql-ws"] {
            let socket = Rc::new(RefCell::new(Socket::open(port, protocol)));
            let Ended {
                mut orders,
                cursor,
                end,
            } = until_expired(&world, |token| {
                let mut opened = Socket::open(port, protocol);
                let payload = json!({"Authorization": format!("Bearer {token}")});
                opened.say(&json!({"type": "connection_init", "payload": payload}));
                assert_eq!(opened.hear()["type"], "connection_ack");
                opened.subscribe("1", &begin);
                *socket.borrow_mut() = opened;
                let socket = Rc::clone(&socket);
                Box::new(move || socket.borrow_mut().result("1"))
            });
            let mut socket = socket.borrow_mut();
            assert_eq!(
                code(&end),
                Some("UNAUTHENTICATED"),
                "{protocol} {port}: {end}"
            );

            socket.subscribe("2", &cursor);
            let refused = socket.result("2");
            assert_eq!(
                code(&refused),
                Some("UNAUTHENTICATED"),
                "{protocol} {port}: {refused}"
            );

            placed.push(place(&world));
            let token = format!("Bearer {}", world.tandem.token(OWN, "self"));
            let (renewal, answer) = if protocol == "graphql-ws" {
                ("connection_init", "connection_ack")
            } else {
                ("ping", "pong")
            };
            socket.say(&json!({"type": renewal, "payload": {"authorization": token}}));
            assert_eq!(socket.hear()["type"], answer);
            socket.subscribe("3", &cursor);
            take_all(&placed, &mut orders, || socket.result("3"));
        }
    }
}

struct Socket {
    socket: WebSocket<TcpStream>,
    protocol: &'static str,
}

impl Socket {
    fn open(port: u16, protocol: &'static str) -> Self {
        let mut request = format!("ws://127.0.0.1:{port}/graphql/ws")
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(LIMIT + Duration::from_secs(240)))
            .unwrap();
        let (socket, _) = tokio_tungstenite::tungstenite::client(request, stream).unwrap();
        Self { socket, protocol }
    }

    fn say(&mut self, message: &Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
    }

    fn subscribe(&mut self, id: &str, after: &Value) {
        let kind = if self.protocol == "graphql-ws" {
            "start"
        } else {
            "subscribe"
        };
        let payload = json!({"query": UPDATES, "variables": {"after": after}});
        self.say(&json!({"type": kind, "id": id, "payload": payload}));
    }

    /// The next message; pings are passed over.
    fn hear(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// The next event or error of a subscription, as a response.
    fn result(&mut self, id: &str) -> Value {
        loop {
            let message = self.hear();
            if message["id"] != id {
                continue;
            }
            match message["type"].as_str() {
                Some("next" | "data") => return message["payload"].clone(),
                Some("error") => return json!({"errors": message["payload"]}),
                _ => panic!("no result: {message}"),
            }
        }
    }
}
