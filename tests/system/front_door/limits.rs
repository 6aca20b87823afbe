//! The configured limits of one WebSocket, and how a subscription ends that is cut off.

use std::{io::Read, time::Duration};

use serde_json::json;

use super::{ports, raw, sockets::Socket};
use crate::support::{Client, Signal, Tandem, Transport, poll, try_signal};

#[test]
fn a_socket_has_as_long_and_as_much_as_the_settings_say() {
    let tandem = Tandem::builder()
        .env("TANDEM_INIT_TIMEOUT_SECONDS", "1")
        .env("TANDEM_MAX_MESSAGE", "2000")
        .start();
    for (name, port) in ports(&tandem) {
        assert_eq!(Socket::open(port).closed(), 4408, "{name}");
        let mut socket = Socket::ready(port);
        let query = format!("{{__typename}} # {}", "x".repeat(1_000));
        socket.subscribe("1", &query);
        assert_eq!(socket.hear()["type"], "next", "{name}");
        assert_eq!(socket.hear()["type"], "complete", "{name}");
        let query = format!("{{__typename}} # {}", "x".repeat(3_000));
        socket.subscribe("2", &query);
        assert_eq!(socket.closed(), 1009, "{name}");
    }
}

#[test]
fn a_connection_that_answers_no_ping_is_given_up_and_one_that_does_is_kept() {
    let tandem = Tandem::builder().env("TANDEM_PING_SECONDS", "1").start();
    for (name, port) in ports(&tandem) {
        // Nobody reads or answers on this connection, as if its machine had vanished.
        let mut silent = raw::connect(port);
        let head = format!(
            "GET /graphql/ws HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        );
        std::io::Write::write_all(&mut silent, head.as_bytes()).unwrap();
        // {"type":"connection_init"}, masked with zeros (RFC 6455, section 5.3).
        let init = br#"{"type":"connection_init"}"#;
        let mut frame = vec![0x81, 0x80 | u8::try_from(init.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(init);
        std::io::Write::write_all(&mut silent, &frame).unwrap();
        let mut kept = Socket::ready(port);
        silent
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        poll("the silent one is given up", || {
            kept.say(&json!({"type": "ping"}));
            assert_eq!(kept.hear()["type"], "pong", "{name}");
            let mut part = [0; 1024];
            matches!(silent.read(&mut part), Ok(0)).then_some(())
        });
        kept.say(&json!({"type": "ping"}));
        assert_eq!(kept.hear()["type"], "pong", "{name}");
    }
}

#[test]
fn a_socket_outlives_the_time_limits_of_requests() {
    let tandem = Tandem::builder()
        .env("TANDEM_HEADER_TIMEOUT_SECONDS", "1")
        .env("TANDEM_IDLE_TIMEOUT_SECONDS", "1")
        .env("TANDEM_PING_SECONDS", "1")
        .start();
    for (name, port) in ports(&tandem) {
        let mut socket = Socket::ready(port);
        // The client sends nothing while these pings arrive.
        socket.hear_pings(4);
        socket.subscribe("1", "{__typename}");
        assert_eq!(socket.hear()["type"], "next", "{name}");
    }
}

const UPDATES: &str = "subscription { orderFeed(heartbeatSeconds: 5, snapshot: true) { __typename
    ... on OrderSnapshot { cursor } ... on OrderUpdate { cursor } ... on Heartbeat { cursor } } }";

#[test]
fn a_service_that_dies_or_stops_ends_subscriptions_with_an_error_and_where_to_go_on() {
    for signal in [Signal::KILL, Signal::TERM] {
        for transport in [
            Transport::ServerSentEvents,
            Transport::Multipart,
            Transport::WebSocket,
        ] {
            let tandem = Tandem::start();
            let client = Client::new();
            let url = tandem.gateway_url("/graphql");
            let updates = client.subscribe(transport, &url, UPDATES, json!({}));
            let cursor = updates.next()["data"]["orderFeed"]["cursor"].clone();
            assert!(try_signal(tandem.child("orders").unwrap(), signal));
            let end = poll("an end", || updates.next_within(Duration::from_secs(1)));
            let error = &end["errors"][0]["extensions"];
            assert_eq!(error["code"], "UNAVAILABLE", "{transport:?}: {end}");
            assert_eq!(error["cursor"], cursor, "{transport:?}: {end}");
        }
    }
}

#[test]
fn a_port_that_stops_says_so_on_every_transport() {
    for is_gateway in [true, false] {
        let tandem = Tandem::start();
        let client = Client::new();
        let (url, port, service) = if is_gateway {
            (tandem.gateway_url("/graphql"), tandem.gateway, "router")
        } else {
            (tandem.orders_url("/graphql"), tandem.orders, "orders")
        };
        let mut socket = Socket::ready(port);
        let streams = [Transport::ServerSentEvents, Transport::Multipart].map(|transport| {
            let stream = client.subscribe(transport, &url, UPDATES, json!({}));
            let cursor = stream.next()["data"]["orderFeed"]["cursor"].clone();
            (transport, stream, cursor)
        });
        assert!(try_signal(tandem.child(service).unwrap(), Signal::TERM));
        assert_eq!(socket.closed(), 1012, "{service}");
        for (transport, stream, cursor) in streams {
            let end = stream.next();
            let error = &end["errors"][0]["extensions"];
            assert_eq!(error["code"], "UNAVAILABLE", "{transport:?}: {end}");
            assert_eq!(error["cursor"], cursor, "{transport:?}: {end}");
        }
    }
}

#[test]
fn a_port_that_stops_says_so_on_each_of_many_sockets_before_its_process_ends() {
    for is_gateway in [true, false] {
        let tandem = Tandem::start();
        let (port, service) = if is_gateway {
            (tandem.gateway, "router")
        } else {
            (tandem.orders, "orders")
        };
        // No other request is open, so the process has no request to wait for at its end.
        let mut sockets: Vec<Socket> = (0..200).map(|_| Socket::ready(port)).collect();
        assert!(try_signal(tandem.child(service).unwrap(), Signal::TERM));
        for (number, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(socket.closed(), 1012, "{service}, socket {number}");
        }
    }
}
