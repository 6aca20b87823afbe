//! The limits of every port, also on those with subscriptions: heads, compressed bodies, requests, subscriptions. Each
//! limit follows its setting: connections, concurrent requests, costs, names.

use std::io::{Read, Write};

use flate2::{Compression, write::GzEncoder};

use super::{
    sockets::{Socket, open_subscriptions},
    *,
};
use crate::support::poll;

const FEED: &str = "subscription { orderFeed(heartbeatSeconds: 5) { __typename } }";
const EVENTS: (&str, &str) = ("accept", "text/event-stream");

#[test]
fn a_head_that_is_too_large_is_refused_with_431_on_every_port() {
    let tandem = Tandem::start();
    let long = "x".repeat(80 << 10);
    let many: Vec<String> = (0..150).map(|number| format!("x-many-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    for (name, port) in ports(&tandem) {
        let longer = long.repeat(5);
        for headers in [
            vec![("x-long", long.as_str())],
            vec![("x-longer", longer.as_str())],
            many.clone(),
        ] {
            let answer = refused_head(port, &headers);
            // A client that writes far more before it reads may only see the connection close.
            let may_end = headers.iter().any(|(_, value)| value.len() > 128 << 10);
            assert!(
                answer.starts_with("HTTP/1.1 431 ") || may_end && answer.is_empty(),
                "{name}, {} headers: {answer:?}",
                headers.len()
            );
        }
        // An invalid head also gets a response.
        let none = refused_line(port, b"nonsense\r\n\r\n");
        assert!(none.starts_with("HTTP/1.1 400 "), "{name}: {none:?}");
        // So does the handshake of a WebSocket.
        let socket = Socket::open_with(port, &[("x-long", &long)]);
        assert!(socket.is_err(), "{name}");
    }
    all_answer(&tandem);
}

/// The first line of the response to a head. It may arrive before the whole head is written.
fn refused_head(port: u16, headers: &[(&str, &str)]) -> String {
    let mut head = format!("GET /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    refused_line(port, head.as_bytes())
}

fn refused_line(port: u16, head: &[u8]) -> String {
    let mut stream = raw::connect(port);
    let _ = stream.write_all(head);
    let mut answer = [0; 256];
    let read = stream.read(&mut answer).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_body_is_taken_within_the_bounds_of_what_it_holds() {
    let tandem = Tandem::start();
    let head = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let bomb = json!({"query": "{__typename}", "variables": {"a": "x".repeat(64 << 20)}});
    let bomb = gzip(bomb.to_string().as_bytes());
    assert!(bomb.len() < 256 << 10);
    let query = json!({"query": "{__typename}"}).to_string();
    for (name, port) in ports(&tandem) {
        let answer = send(port, "POST", "/graphql", &head, &gzip(query.as_bytes()));
        assert_eq!(
            answer.json()["data"]["__typename"],
            "Query",
            "{name}: {answer:?}"
        );
        let answer = send(port, "POST", "/graphql", &head, &bomb);
        assert_eq!(answer.status, 413, "{name}: {answer:?}");
        let answer = send(port, "POST", "/graphql", &head, query.as_bytes());
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    // A compressed subscription works too. Its events arrive one by one, whatever encodings the client accepts.
    for (name, port) in [("gateway", tandem.gateway), ("orders", tandem.orders)] {
        let body = gzip(json!({"query": FEED}).to_string().as_bytes());
        let mut stream = raw::connect(port);
        let head = format!(
            "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\naccept-encoding: gzip\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let mut said = String::new();
        while !said.contains("Heartbeat") {
            let mut part = [0; 4_096];
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "{name}: {said}");
            said.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        assert!(
            !said.to_ascii_lowercase().contains("content-encoding"),
            "{name}: {said}"
        );
    }
}

/// Begins a subscription by server-sent events. Returns the status, and the connection on which it continues.
fn events(port: u16) -> (u16, std::net::TcpStream) {
    let body = json!({"query": FEED}).to_string();
    let mut stream = raw::connect(port);
    let (accept, kind) = EVENTS;
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{accept}: {kind}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).unwrap();
    let status = String::from_utf8_lossy(&begin[9..]).into_owned();
    (status.parse().unwrap(), stream)
}

#[test]
fn a_client_has_as_many_subscriptions_as_the_settings_say_over_all_its_connections() {
    for is_gateway in [true, false] {
        let tandem = Tandem::builder()
            .env("TANDEM_MAX_SUBSCRIPTIONS_PER_CLIENT", "4")
            .start();
        let port = if is_gateway {
            tandem.gateway
        } else {
            tandem.orders
        };
        let mut socket = Socket::ready(port);
        for number in 0..2 {
            socket.subscribe(&number.to_string(), FEED);
        }
        let kept = [events(port), events(port)];
        assert!(kept.iter().all(|(status, _)| *status == 200));
        poll("all four are counted", || {
            (open_subscriptions(port) > 3.5).then_some(())
        });
        assert_eq!(events(port).0, 429);
        socket.subscribe("more", FEED);
        let refused = poll("and so it is on the socket", || {
            let said = socket.hear();
            (said["id"] == "more").then_some(said)
        });
        assert_eq!(
            refused["payload"][0]["extensions"]["code"], "RATE_LIMITED",
            "{refused}"
        );
        // A client that disconnects makes room.
        drop(kept);
        poll("there is room again", || {
            (events(port).0 == 200).then_some(())
        });
    }
}

#[test]
fn who_asks_too_often_is_told_so_on_every_port_and_transport() {
    let tandem = Tandem::builder().env("TANDEM_RATE_LIMIT", "20").start();
    for (name, port) in ports(&tandem) {
        let refused = (0..600).find_map(|_| {
            let answer = graphql_with(port, &[EVENTS], &json!({"query": "{__typename}"}));
            (answer.status == 429).then_some(answer)
        });
        let refused = refused.unwrap_or_else(|| panic!("{name}: no refusal"));
        assert_eq!(refused.code(), "RATE_LIMITED", "{name}: {refused:?}");
        assert!(
            refused.header("retry-after").is_some(),
            "{name}: {refused:?}"
        );
        let mut socket = poll("a socket is opened", || {
            let mut socket = Socket::open_with(port, &[]).ok()?;
            socket.say(&json!({"type": "connection_init"}));
            (socket.hear()["type"] == "connection_ack").then_some(socket)
        });
        for number in 0..400 {
            socket.subscribe(&number.to_string(), "{__typename}");
        }
        let refused = (0..800).find_map(|_| {
            let said = socket.hear();
            (said["type"] == "error").then_some(said)
        });
        let refused = refused.unwrap_or_else(|| panic!("{name}: no refusal on the socket"));
        assert_eq!(
            refused["payload"][0]["extensions"]["code"], "RATE_LIMITED",
            "{name}: {refused}"
        );
    }
}

/// How often a port has refused something for this reason.
fn refusals(port: u16, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    let scrape = get(port, "/actuator/prometheus", &[]).body;
    scrape
        .lines()
        .filter(|line| line.starts_with("front_door_refusals_total") && line.contains(&label))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

/// A socket of another client than the system's own processes. `None` if its connection is closed without a response.
#[cfg(target_os = "linux")]
fn from_elsewhere(port: u16) -> Option<Socket> {
    Socket::open_on(raw::connect_from_elsewhere(port), port, &[]).ok()
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_has_as_many_connections_as_the_settings_say_and_who_leaves_makes_room() {
    // The gateway is a client of the services too, and has some connections.
    const MOST: usize = 12;
    let tandem = Tandem::builder()
        .env("TANDEM_MAX_CONNECTIONS_PER_CLIENT", MOST.to_string())
        .start();
    for (name, port) in ports(&tandem) {
        let open: Option<Vec<Socket>> = (0..MOST).map(|_| from_elsewhere(port)).collect();
        let mut open = open.unwrap_or_else(|| panic!("{name}: fewer than {MOST}"));
        let before = refusals(port, "connections");
        assert!(from_elsewhere(port).is_none(), "{name}: more than {MOST}");
        assert!(refusals(port, "connections") > before, "{name}");
        // Other clients have their own share.
        let answer = graphql(port, "{__typename}", &json!({}));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        open.pop();
        open.push(poll("there is room again", || from_elsewhere(port)));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_port_has_as_many_connections_as_the_settings_say_whosever_they_are() {
    const MOST: usize = 40;
    let tandem = Tandem::builder()
        .env("TANDEM_MAX_CONNECTIONS", MOST.to_string())
        .start();
    for (name, port) in ports(&tandem) {
        let mut open = Vec::new();
        while let Some(socket) = from_elsewhere(port) {
            open.push(socket);
            assert!(open.len() <= MOST, "{name}: more than {MOST}");
        }
        // The system's own processes have some of them.
        assert!(open.len() > MOST / 2, "{name}: {}", open.len());
        drop(open);
        poll("there is room again", || {
            let some: Option<Vec<Socket>> = (0..MOST / 2).map(|_| from_elsewhere(port)).collect();
            some.map(drop)
        });
        assert!(refusals(port, "connections") > 0, "{name}");
    }
}

/// A request whose last byte is still missing. It counts as being answered.
fn begun(port: u16) -> std::net::TcpStream {
    let body = json!({"query": "{__typename}"}).to_string();
    let (begin, _) = body.split_at(body.len() - 1);
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{begin}",
        body.len()
    );
    let mut stream = raw::connect(port);
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_port_answers_as_many_requests_at_once_as_the_settings_say() {
    const MOST: usize = 4;
    let tandem = Tandem::builder()
        .env("TANDEM_MAX_IN_FLIGHT", MOST.to_string())
        .env("TANDEM_MAX_IN_FLIGHT_PER_CLIENT", MOST.to_string())
        .start();
    for (name, port) in ports(&tandem) {
        let mut kept = vec![begun(port), begun(port)];
        let refused = poll("no more are taken", || {
            let answer = graphql(port, "{__typename}", &json!({}));
            if answer.status == 200 {
                kept.push(begun(port));
            }
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(refused.status, 429, "{name}: {refused:?}");
        assert_eq!(refused.code(), "RATE_LIMITED", "{name}: {refused:?}");
        assert!(refused.message().contains("at once"), "{name}: {refused:?}");
        assert!(
            refused.header("retry-after").is_some(),
            "{name}: {refused:?}"
        );
        // The supervisor sends a probe now and then, so there may be one less.
        assert!(kept.len() >= MOST - 1, "{name}: {}", kept.len());
        for stream in kept.iter_mut().take(2) {
            stream.write_all(b"}").unwrap();
            let answer = raw::read(stream);
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
        drop(kept);
        poll("requests are answered again", || {
            let answer = graphql(port, "{__typename}", &json!({}));
            (answer.status == 200).then_some(())
        });
        assert!(refusals(port, "rate") > 0, "{name}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_sends_slowly_leaves_room_for_others() {
    let tandem = Tandem::builder()
        .env("TANDEM_MAX_IN_FLIGHT", "64")
        .env("TANDEM_MAX_IN_FLIGHT_PER_CLIENT", "8")
        .start();
    for (name, port) in ports(&tandem) {
        let mut slow: Vec<_> = (0..8).map(|_| begun(port)).collect();
        let refused = poll("no more are taken of this client", || {
            let answer = graphql(port, "{__typename}", &json!({}));
            if answer.status == 200 {
                slow.push(begun(port));
            }
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(refused.status, 429, "{name}: {refused:?}");
        assert_eq!(refused.code(), "RATE_LIMITED", "{name}: {refused:?}");
        let body = json!({"query": "{__typename}"}).to_string();
        let mut other = raw::connect_from_elsewhere(port);
        let head = format!(
            "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        other.write_all(head.as_bytes()).unwrap();
        let answer = raw::read(&mut other);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
}

#[test]
fn an_operation_may_cost_as_much_as_the_settings_say() {
    let tandem = Tandem::builder().env("TANDEM_MAX_COST", "60").start();
    let lists = ["customers", "customers", "orders"];
    for ((name, port), list) in ports(&tandem).into_iter().zip(lists) {
        let query =
            |first: u32| format!("{{ {list}(first: {first}) {{ nodes {{ id revision }} }} }}");
        let cheap = graphql(port, &query(5), &json!({}));
        assert!(cheap.json()["data"][list].is_object(), "{name}: {cheap:?}");
        // Services allow twice as much, because the gateway requests keys in addition to the client's fields.
        let dear = graphql(port, &query(100), &json!({}));
        assert_eq!(dear.code(), "TOO_EXPENSIVE", "{name}: {dear:?}");
        let mut socket = Socket::ready(port);
        socket.subscribe("1", &query(100));
        let refused = socket.hear();
        assert_eq!(
            refused["payload"][0]["extensions"]["code"], "TOO_EXPENSIVE",
            "{name}: {refused}"
        );
        assert!(refusals(port, "cost") > 0, "{name}");
    }
}

#[test]
fn a_port_answers_to_the_names_that_the_settings_say_and_to_its_own() {
    let tandem = Tandem::builder()
        .env("TANDEM_ALLOWED_HOSTS", "shop.example, other.example")
        .start();
    let query = json!({"query": "{__typename}"});
    for (name, port) in ports(&tandem) {
        for host in [
            "shop.example",
            "Shop.Example:8443",
            "other.example",
            "localhost",
            "127.0.0.1",
        ] {
            let answer = graphql_with(port, &[("host", host)], &query);
            assert_eq!(answer.status, 200, "{name} {host}: {answer:?}");
        }
        let before = refusals(port, "host");
        // Where names are listed, an address is a name like any other.
        let foreign = [
            "evil.example",
            "www.shop.example",
            "shop.example.evil",
            "10.0.0.1",
        ];
        for host in foreign {
            let answer = graphql_with(port, &[("host", host)], &query);
            assert_eq!(answer.status, 421, "{name} {host}: {answer:?}");
            assert!(
                Socket::open_with(port, &[("host", host)]).is_err(),
                "{name} {host}"
            );
        }
        let expected = before + 2 * foreign.len() as u64;
        assert_eq!(refusals(port, "host"), expected, "{name}");
    }
}
