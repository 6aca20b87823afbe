//! Long connections: when a token expires, its subscriptions end with an error, on every transport. A new token resumes
//! where the old one ended, on the same socket or on another.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{OWN, PLACE, World, code, order, sockets::Socket};
use crate::support::{Client, Tandem, Transport, poll};

const UPDATES: &str =
    "subscription($after: String) { orderUpdated(after: $after) { cursor type order { id } } }";
/// Lifetimes of tokens in seconds. If the machine is too slow for one, the next is tried.
const LIVES: [u64; 4] = [4, 16, 60, 240];

/// What a subscription delivered until its token expired.
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

/// A cursor of the customer's own feed.
fn begin(world: &World) -> Value {
    let url = world.tandem.orders_url("/graphql");
    let client = Client::with_token(world.tandem.token(OWN, "self"));
    let updates = client.subscribe(Transport::ServerSentEvents, &url, UPDATES, json!({}));
    let event = poll("an update arrives", || {
        place(world);
        updates.next_within(Duration::from_secs(1))
    });
    event["data"]["orderUpdated"]["cursor"].clone()
}

/// Reads responses until all these orders have arrived, and fails if one arrives twice. Other orders may have been in
/// flight at the beginning.
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
                opened.init(Some(&token));
                opened.subscribe("1", UPDATES, &json!({"after": begin}));
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

            let after = json!({"after": cursor});
            socket.subscribe("2", UPDATES, &after);
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
            socket.subscribe("3", UPDATES, &after);
            take_all(&placed, &mut orders, || socket.result("3"));
        }
    }
}

#[test]
fn a_new_token_that_is_not_taken_is_told_at_once_in_either_protocol() {
    let tandem = Tandem::builder().flag("--auth").start();
    let good = format!("Bearer {}", tandem.token(OWN, "self"));
    for port in [tandem.gateway, tandem.accounts, tandem.orders] {
        for protocol in ["graphql-transport-ws", "graphql-ws"] {
            let is_older = protocol == "graphql-ws";
            let mut socket = Socket::open(port, protocol);
            let mut bring = |kind: &str, token: &str| {
                socket.say(&json!({"type": kind, "payload": {"authorization": token}}));
                socket.hear()
            };
            assert_eq!(bring("connection_init", &good)["type"], "connection_ack");
            let (renewal, taken, refused) = if is_older {
                ("connection_init", "connection_ack", "connection_error")
            } else {
                ("ping", "pong", "pong")
            };
            let answer = bring(renewal, "Bearer nonsense");
            assert_eq!(answer["type"], refused, "{protocol} {port}: {answer}");
            let error = if is_older {
                &answer["payload"]
            } else {
                &answer["payload"]["errors"][0]
            };
            assert_eq!(
                error["extensions"]["code"], "UNAUTHENTICATED",
                "{protocol} {port}: {answer}"
            );
            assert!(error["message"].is_string(), "{answer}");
            assert_eq!(bring(renewal, &good), json!({"type": taken}));
        }
    }
}

#[test]
fn tokens_on_an_open_socket_are_verified_within_the_share_of_their_address() {
    const AT_ONCE: usize = 100;
    let tandem = Tandem::builder()
        .flag("--auth")
        .env("TANDEM_RATE_LIMIT", "20")
        .start();
    let good = format!("Bearer {}", tandem.token("reader", "customers:read"));
    for port in [tandem.gateway, tandem.orders] {
        let mut socket = Socket::open(port, "graphql-transport-ws");
        socket.say(&json!({"type": "connection_init", "payload": {"authorization": good}}));
        assert_eq!(socket.hear()["type"], "connection_ack", "{port}");
        poll("tokens come faster than they are verified", || {
            for number in 0..AT_ONCE {
                let token = format!("Bearer nonsense-{number}");
                socket.say(&json!({"type": "ping", "payload": {"authorization": token}}));
            }
            let codes: Vec<Value> = (0..AT_ONCE)
                .map(|_| socket.hear()["payload"]["errors"][0]["extensions"]["code"].clone())
                .collect();
            codes.contains(&json!("RATE_LIMITED")).then_some(())
        });
        // A token that was already verified costs nothing, and the subject has its own share of the limits.
        socket.say(&json!({"type": "ping", "payload": {"authorization": good}}));
        assert_eq!(socket.hear(), json!({"type": "pong"}), "{port}");
        let query = json!({"query": "{ __typename }"});
        socket.say(&json!({"type": "subscribe", "id": "1", "payload": query}));
        let answer = socket.result("1");
        assert_eq!(answer["data"]["__typename"], "Query", "{port}: {answer}");
    }
}
