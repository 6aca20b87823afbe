//! WebSockets: graphql-transport-ws and RFC 6455, exactly as specified, and with limits.

use std::{io::Write, net::TcpStream};

use tokio_tungstenite::tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    protocol::frame::{
        Frame, FrameHeader,
        coding::{Data, OpCode},
    },
};

use super::*;
use crate::support::poll;

const SUBSCRIPTION: &str = r#"subscription{customerUpdated(id:"1"){id}}"#;

pub(super) struct Socket(WebSocket<TcpStream>);

impl Socket {
    pub(super) fn open(port: u16) -> Self {
        Self::open_with(port, &[]).unwrap()
    }

    pub(super) fn open_with(port: u16, headers: &[(&'static str, &str)]) -> Result<Self, String> {
        Self::open_on(raw::connect(port), port, headers)
    }

    pub(super) fn open_on(
        stream: TcpStream,
        port: u16,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        let mut request = format!("ws://127.0.0.1:{port}/graphql/ws")
            .into_client_request()
            .unwrap();
        let map = request.headers_mut();
        map.insert(
            "sec-websocket-protocol",
            "graphql-transport-ws".parse().unwrap(),
        );
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::tungstenite::client(request, stream)
            .map(|(socket, _)| Self(socket))
            .map_err(|error| error.to_string())
    }

    pub(super) fn ready(port: u16) -> Self {
        let mut socket = Self::open(port);
        socket.say(&json!({"type": "connection_init"}));
        assert_eq!(socket.hear()["type"], "connection_ack");
        socket
    }

    pub(super) fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    pub(super) fn subscribe(&mut self, id: &str, query: &str) {
        self.say(&json!({"id": id, "type": "subscribe", "payload": {"query": query}}));
    }

    /// The next message. Skips pings.
    pub(super) fn hear(&mut self) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// Waits for this many pings, which are answered meanwhile.
    pub(super) fn hear_pings(&mut self, count: usize) {
        let mut heard = 0;
        while heard < count {
            heard += usize::from(matches!(self.0.read().unwrap(), Message::Ping(_)));
        }
    }

    /// The code with which the connection is closed.
    pub(super) fn closed(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.map_or(1005, |frame| frame.code.into()),
                Ok(_) => {}
                Err(error) => panic!("closed without a word: {error}"),
            }
        }
    }
}

/// How many open subscriptions a port reports. Zero if it has never had one.
pub(super) fn open_subscriptions(port: u16) -> f64 {
    let scrape = get(port, "/actuator/prometheus", &[]).body;
    scrape
        .lines()
        .filter(|line| line.starts_with("front_door_subscriptions"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[test]
fn what_breaks_the_protocol_is_closed_with_its_code() {
    let tandem = Tandem::start();
    for (name, port) in ports(&tandem) {
        let query = json!({"id": "1", "type": "subscribe", "payload": {"query": "{__typename}"}});
        let mut early = Socket::open(port);
        early.say(&query);
        assert_eq!(early.closed(), 4401, "{name}");
        let mut twice = Socket::ready(port);
        twice.say(&json!({"type": "connection_init"}));
        assert_eq!(twice.closed(), 4429, "{name}");
        for wrong in [
            json!({"type": "nothing"}),
            json!({"id": "1", "type": "subscribe"}),
            json!({"id": "1", "type": "subscribe", "payload": "x"}),
            json!({"id": "", "type": "subscribe", "payload": {"query": "{a}"}}),
            json!({"type": "subscribe", "payload": {"query": "{a}"}}),
            json!(["subscribe"]),
            json!(5),
        ] {
            let mut socket = Socket::ready(port);
            socket.say(&wrong);
            assert_eq!(socket.closed(), 4400, "{name} {wrong}");
        }
        // A payload may name its document instead of containing it. A payload that does neither is a bad operation, and
        // the socket stays open.
        let mut socket = Socket::ready(port);
        socket.say(&json!({"id": "1", "type": "subscribe", "payload": {}}));
        let error = socket.hear();
        assert_eq!(
            (&error["type"], &error["id"]),
            (&json!("error"), &json!("1")),
            "{name}: {error}"
        );
        assert_eq!(
            error["payload"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{name}: {error}"
        );
        socket.subscribe("1", "{__typename}");
        assert_eq!(socket.hear()["type"], "next", "{name}");
        for text in [
            "no json",
            "{",
            &format!("{{\"a\":{}{}}}", "[".repeat(9_000), "]".repeat(9_000)),
        ] {
            let mut socket = Socket::ready(port);
            socket.0.send(Message::text(text.to_owned())).unwrap();
            assert_eq!(socket.closed(), 4400, "{name}");
        }
        for document in ["{", "{nothing}"] {
            let mut socket = Socket::ready(port);
            socket.subscribe("e", document);
            let error = socket.hear();
            assert_eq!(
                (&error["type"], &error["id"]),
                (&json!("error"), &json!("e")),
                "{name}: {error}"
            );
            assert_eq!(error["payload"][0]["extensions"]["code"], "BAD_USER_INPUT");
            assert!(error["payload"][0]["locations"].is_array(), "{error}");
        }
    }
    for port in [tandem.gateway, tandem.orders] {
        let mut socket = Socket::ready(port);
        socket.subscribe("same", SUBSCRIPTION);
        socket.subscribe("same", SUBSCRIPTION);
        assert_eq!(socket.closed(), 4409);
    }
}

#[test]
fn frames_are_as_rfc_6455_has_them() {
    let tandem = Tandem::start();
    let message =
        json!({"id": "q", "type": "subscribe", "payload": {"query": "{__typename}"}}).to_string();
    for (name, port) in ports(&tandem) {
        let mut large = Socket::ready(port);
        let query = format!("{{__typename}} #{}", "x".repeat(70_000));
        large.subscribe("q", &query);
        assert_eq!(
            large.hear()["payload"]["data"]["__typename"],
            "Query",
            "{name}"
        );

        let mut split = Socket::ready(port);
        let (first, second) = message.split_at(20);
        let part = |text: &str, code, is_last| {
            Message::Frame(Frame::message(
                text.as_bytes().to_vec(),
                OpCode::Data(code),
                is_last,
            ))
        };
        split.0.send(part(first, Data::Text, false)).unwrap();
        split.0.send(part(second, Data::Continue, true)).unwrap();
        assert_eq!(
            split.hear()["payload"]["data"]["__typename"],
            "Query",
            "{name}"
        );

        let mut reserved = Socket::ready(port);
        let header = FrameHeader {
            rsv1: true,
            opcode: OpCode::Data(Data::Text),
            ..FrameHeader::default()
        };
        let frame = Frame::from_payload(header, message.clone().into_bytes().into());
        reserved.0.send(Message::Frame(frame)).unwrap();
        assert_eq!(reserved.closed(), 1002, "{name}");

        let mut not_utf8 = Socket::ready(port);
        let frame = Frame::message(vec![0xff, 0xfe, 0x80], OpCode::Data(Data::Text), true);
        not_utf8.0.send(Message::Frame(frame)).unwrap();
        assert_eq!(not_utf8.closed(), 1007, "{name}");

        let mut too_large = Socket::ready(port);
        let _ = too_large.0.send(Message::text("x".repeat(2 << 20)));
        assert_eq!(too_large.closed(), 1009, "{name}");

        let mut leaving = Socket::ready(port);
        leaving.0.close(None).unwrap();
        let code = leaving.closed();
        assert!(code == 1000 || code == 1005, "{name}: {code}");
    }
}

#[test]
fn pages_of_other_origins_open_no_socket() {
    let tandem = Tandem::start();
    for (name, port) in ports(&tandem) {
        for origin in ["http://evil.example", "null", "http://localhost:3000"] {
            let refused = Socket::open_with(port, &[("origin", origin)])
                .err()
                .unwrap();
            assert!(refused.contains("403"), "{name} {origin}: {refused}");
        }
        let own = format!("http://127.0.0.1:{port}");
        assert!(
            Socket::open_with(port, &[("origin", &own)]).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn what_a_client_ends_is_ended_everywhere() {
    let tandem = Tandem::start();
    let mut socket = Socket::ready(tandem.gateway);
    for number in 0..100 {
        let id = number.to_string();
        // In one packet, like a client that changes its mind.
        let subscribe = json!({"id": id, "type": "subscribe", "payload": {"query": SUBSCRIPTION}});
        let complete = json!({"id": id, "type": "complete"});
        socket
            .0
            .write(Message::text(subscribe.to_string()))
            .unwrap();
        socket.0.write(Message::text(complete.to_string())).unwrap();
        socket.0.flush().unwrap();
    }
    socket.subscribe("q", "{__typename}");
    assert_eq!(
        socket.hear()["id"],
        "q",
        "nothing was said of what was ended"
    );
    for port in [tandem.gateway, tandem.orders] {
        poll("no subscription is open", || {
            (open_subscriptions(port) < 0.5).then_some(())
        });
    }
}

#[test]
fn one_socket_cannot_hold_everybodys_subscriptions() {
    let tandem = Tandem::builder()
        .env("TANDEM_MAX_SUBSCRIPTIONS_PER_CONNECTION", "50")
        .start();
    for port in [tandem.gateway, tandem.orders] {
        let mut socket = Socket::ready(port);
        for number in 0..80 {
            socket.subscribe(&number.to_string(), SUBSCRIPTION);
        }
        for _ in 0..30 {
            let refused = socket.hear();
            assert_eq!(refused["type"], "error");
            assert_eq!(
                refused["payload"][0]["extensions"]["code"], "RATE_LIMITED",
                "{refused}"
            );
        }
        // A client that continues after that ignores the errors.
        for number in 80..600 {
            let id = number.to_string();
            let subscribe =
                json!({"id": id, "type": "subscribe", "payload": {"query": SUBSCRIPTION}});
            if socket.0.send(Message::text(subscribe.to_string())).is_err() {
                break;
            }
        }
        assert_eq!(socket.closed(), 4429);
        drop(socket);
        poll("what the client left is cleaned up", || {
            (open_subscriptions(tandem.orders) < 0.5).then_some(())
        });
    }
    all_answer(&tandem);
}

#[test]
fn a_handshake_is_answered_as_rfc_6455_has_it() {
    let tandem = Tandem::start();
    for (name, port) in ports(&tandem) {
        let mut stream = raw::connect(port);
        let head = format!(
            "GET /graphql/ws HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut part = [0; 2048];
        let read = std::io::Read::read(&mut stream, &mut part).unwrap();
        let answer = String::from_utf8_lossy(&part[..read]).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{name}: {answer}");
        assert!(
            answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{name}: {answer}"
        );
        assert!(!answer.contains("transfer-encoding"), "{name}: {answer}");
    }
}
