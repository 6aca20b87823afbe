//! The transports of subscriptions, byte by byte, on every port that has them: frames split across packets, server-sent
//! events, multipart.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use super::*;
use crate::support::{LIMIT, Signal, try_signal};

const FEED: &str = "subscription { orderFeed(heartbeatSeconds: 5) { __typename
    ... on OrderUpdate { order { id } } ... on Heartbeat { cursor } } }";

/// The ports with subscriptions, each with its process.
fn live_ports(tandem: &Tandem) -> [(&'static str, u16); 2] {
    [("router", tandem.gateway), ("orders", tandem.orders)]
}

/// A frame from a client, masked with zeros (RFC 6455, section 5.3).
fn frame(operation: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![operation];
    match u16::try_from(text.len()).unwrap() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A whole text message, the first part of one, its last part, and a ping.
const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const TEXT_ENDS: u8 = 0x80;
const PING: u8 = 0x89;

fn handshake(port: u16) -> Vec<u8> {
    format!(
        "GET /graphql/ws HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
    )
    .into_bytes()
}

/// Reads until this text has arrived this many times.
#[track_caller]
fn read_until(stream: &mut TcpStream, words: &str, often: usize) -> String {
    let deadline = Instant::now() + LIMIT;
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if text.matches(words).count() >= often {
            return text.into_owned();
        }
        assert!(Instant::now() < deadline, "no {words:?}: {text:?}");
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => panic!("it ended without {words:?}: {text:?}"),
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            Err(error) => panic!("no {words:?} ({error}): {text:?}"),
        }
    }
}

#[test]
fn frames_count_however_packets_bring_them() {
    let tandem = Tandem::start();
    let init = frame(TEXT, r#"{"type":"connection_init"}"#);
    let ask = json!({"id": "q", "type": "subscribe", "payload": {"query": "{__typename}"}});
    let ask = ask.to_string();
    let complete = r#"{"id":"q","type":"complete"}"#;
    for (name, port) in ports(&tandem) {
        // Two frames in one packet, and then two more.
        let mut stream = raw::connect(port);
        stream.write_all(&handshake(port)).unwrap();
        read_until(&mut stream, "\r\n\r\n", 1);
        let both = [init.clone(), frame(TEXT, &ask)].concat();
        stream.write_all(&both).unwrap();
        read_until(&mut stream, complete, 1);
        let other = ask.replace("\"q\"", "\"r\"");
        let both = [frame(TEXT, &ask), frame(TEXT, &other)].concat();
        stream.write_all(&both).unwrap();
        read_until(&mut stream, &complete.replace('q', "r"), 1);

        // One frame in many packets.
        let mut stream = raw::connect(port);
        stream.set_nodelay(true).unwrap();
        stream.write_all(&handshake(port)).unwrap();
        read_until(&mut stream, "\r\n\r\n", 1);
        for byte in [init.clone(), frame(TEXT, &ask)].concat() {
            stream.write_all(&[byte]).unwrap();
        }
        read_until(&mut stream, complete, 1);

        // A fragmented message, with a ping between its parts, directly after the handshake.
        let mut stream = raw::connect(port);
        let (first, second) = ask.split_at(20);
        let parts = [
            handshake(port),
            init.clone(),
            frame(TEXT_BEGINS, first),
            frame(PING, "here?"),
            frame(TEXT_ENDS, second),
        ];
        stream.write_all(&parts.concat()).unwrap();
        let said = read_until(&mut stream, complete, 1);
        assert!(said.contains("here?"), "{name}: {said:?}");
    }
}

#[test]
fn a_message_that_never_ends_is_not_held_for_as_long_as_its_sender_pings() {
    let tandem = Tandem::builder().env("TANDEM_PING_SECONDS", "1").start();
    let init = frame(TEXT, r#"{"type":"connection_init"}"#);
    let much = "x".repeat(40_000);
    for (_, port) in ports(&tandem) {
        let mut stream = raw::connect(port);
        let parts = [handshake(port), init.clone(), frame(TEXT_BEGINS, &much)];
        stream.write_all(&parts.concat()).unwrap();
        let deadline = Instant::now() + LIMIT;
        let mut said = Vec::new();
        // The close frame has the code 1008.
        while !said.windows(2).any(|two| two == 1008_u16.to_be_bytes()) {
            assert!(Instant::now() < deadline, "{said:?}");
            let mut part = [0; 4096];
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "{said:?}");
            said.extend_from_slice(&part[..read]);
            stream.write_all(&frame(PING, "here")).unwrap();
        }
    }
}

/// Sends a subscription, and waits until it is accepted.
fn subscribe(port: u16, accept: &str, begins: &str) -> (TcpStream, String) {
    let body = json!({"query": FEED}).to_string();
    let mut stream = raw::connect(port);
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: {accept}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let begin = read_until(&mut stream, begins, 1);
    (stream, begin)
}

#[test]
fn server_sent_events_begin_at_once_and_end_with_an_event_that_has_data() {
    for number in 0..2 {
        let tandem = Tandem::start();
        let (service, port) = live_ports(&tandem)[number];
        let (mut stream, begin) = subscribe(port, "text/event-stream", ":\n\n");
        let head = begin.to_ascii_lowercase();
        for line in [
            "content-type: text/event-stream\r\n",
            "cache-control: no-cache\r\n",
            "x-accel-buffering: no\r\n",
        ] {
            assert!(head.contains(line), "{service}: {begin}");
        }
        read_until(&mut stream, "Heartbeat", 1);
        assert!(try_signal(tandem.child(service).unwrap(), Signal::TERM));
        let end = read_until(&mut stream, "event: complete\ndata: \n\n", 1);
        assert!(end.contains("UNAVAILABLE"), "{service}: {end}");
    }
}

#[test]
fn the_mode_of_server_sent_events_that_is_not_spoken_is_refused_with_a_word() {
    let tandem = Tandem::start();
    for (name, port) in live_ports(&tandem) {
        let reserve = send(port, "PUT", "/graphql", &[], b"");
        assert_eq!(reserve.status, 405, "{name}: {reserve:?}");
        assert!(
            reserve.body.contains("distinct connections"),
            "{name}: {reserve:?}"
        );
        let token = [
            ("x-graphql-event-stream-token", "t"),
            ("accept", "text/event-stream"),
        ];
        let operation = json!({"query": FEED, "extensions": {"operationId": "1"}});
        for answer in [
            graphql_with(port, &token, &operation),
            get(port, "/graphql?token=t", &[("accept", "text/event-stream")]),
        ] {
            assert_eq!(answer.status, 400, "{name}: {answer:?}");
            assert!(
                answer.body.contains("distinct connections"),
                "{name}: {answer:?}"
            );
        }
    }
}

#[test]
fn multipart_is_as_apollo_client_reads_it() {
    for number in 0..2 {
        let tandem = Tandem::start();
        let (service, port) = live_ports(&tandem)[number];
        let accept =
            "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\",application/json";
        let (mut stream, begin) = subscribe(port, accept, "\r\n--graphql");
        let kind =
            "content-type: multipart/mixed;boundary=\"graphql\";subscriptionspec=\"1.0\"\r\n";
        let head = begin.to_ascii_lowercase();
        assert!(head.contains(kind), "{service}: {begin}");
        let part = read_until(&mut stream, "\r\n--graphql", 1);
        let payload =
            "\r\ncontent-type: application/json\r\n\r\n{\"payload\":{\"data\":{\"orderFeed\":";
        assert!(part.contains(payload), "{service}: {part:?}");
        assert!(try_signal(tandem.child(service).unwrap(), Signal::TERM));
        let end = read_until(&mut stream, "--graphql--\r\n", 1);
        assert!(end.contains("UNAVAILABLE"), "{service}: {end:?}");
    }
}
