//! The front door, over a socket, with requests, documents and WebSocket frames that nobody thought of: after each an honest client is
//! answered, and what gets through is what the schema has.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tandem_front_door::graphql::{GraphQlRules, GraphSchema, Treatment};
use tandem_front_door::{FrontDoor, FrontDoorSettings, Stopper, Tasks, stop};
use tandem_fuzzing::Corpus;

const SUPERGRAPH: &str = include_str!("../../../schema/supergraph.graphql");
/// For an answer, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A front door with nothing but an echo behind it.
struct Door {
    port: u16,
    _stop: Stopper,
    _runtime: tokio::runtime::Runtime,
}

impl Door {
    fn open() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let schema = GraphSchema::from_sdl(SUPERGRAPH).unwrap();
        let rules = GraphQlRules {
            schema: Some(schema),
            treatment: Treatment {
                fill_empty_selections: true,
                is_federated: true,
                ..Treatment::default()
            },
            ..GraphQlRules::default()
        };
        let door = FrontDoor::new(&FrontDoorSettings::default(), rules, Tasks::Shared);
        // What is carried out is valid and bounded: it is parsed once more by whatever stands here.
        let echo = Router::new().route(
            "/graphql",
            post(async |Json(request): Json<Value>| {
                assert!(request["query"].is_string());
                Json(json!({"data": {"__typename": "Query"}}))
            }),
        );
        let (stopper, stopped) = stop();
        runtime.spawn(async move {
            door.serve(listener, echo, stopped, Duration::ZERO)
                .await
                .unwrap();
        });
        Self {
            port,
            _stop: stopper,
            _runtime: runtime,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends a body and gives the answer.
    fn send(&self, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        let head = format!(
            "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\ncontent-type: application/json\r\naccept: application/graphql-response+json\r\ncontent-length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).unwrap_or("0").parse().unwrap();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    fn answers_an_honest_client(&self) {
        let (status, body) = self.send(br#"{"query":"{__typename}"}"#);
        assert_eq!(status, 200, "{body}");
    }
}

/// Every request is answered: carried out, or refused with a message.
fn is_answered(door: &Door, body: &[u8]) {
    let (status, answer) = door.send(body);
    assert!(
        matches!(status, 200 | 400 | 406 | 413 | 415 | 429),
        "{status} {answer}: {}",
        String::from_utf8_lossy(body)
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let is_told = answer["errors"][0]["message"]
        .as_str()
        .is_some_and(|told| !told.is_empty());
    assert!(answer.get("data").is_some() || is_told, "{answer}");
}

#[test]
fn a_request_is_carried_out_or_refused_whatever_its_body_is() {
    let door = Door::open();
    for body in Corpus::of("requests", []).lines() {
        is_answered(&door, &body);
    }
    door.answers_an_honest_client();
}

#[test]
fn a_request_is_carried_out_or_refused_whatever_its_document_is() {
    let door = Door::open();
    for document in Corpus::of("documents", []) {
        let text = String::from_utf8_lossy(&document);
        let request = json!({"query": text, "variables": {"id": 1, "n": null}});
        is_answered(&door, request.to_string().as_bytes());
    }
    door.answers_an_honest_client();
}

#[test]
fn heads_of_requests_and_what_is_no_request_cost_themselves() {
    let door = Door::open();
    for head in Corpus::of("frames", []) {
        let mut stream = door.connect();
        if stream.write_all(&head).is_err() {
            continue;
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 1_024]);
    }
    door.answers_an_honest_client();
}

#[test]
fn frames_of_a_websocket_cost_their_connection_at_most() {
    let door = Door::open();
    let handshake = format!(
        "GET /graphql/ws HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n",
        door.port
    );
    let begin = Instant::now();
    for message in Corpus::of("requests", []).lines() {
        // Each opens a connection: fewer of them suffice.
        if begin.elapsed() > Duration::from_secs(10) {
            break;
        }
        let mut stream = door.connect();
        stream.write_all(handshake.as_bytes()).unwrap();
        let mut head = [0; 1_024];
        let read = stream.read(&mut head).unwrap();
        assert!(head[..read].starts_with(b"HTTP/1.1 101"));
        let subscribe = [
            br#"{"id":"1","type":"subscribe","payload":"#.as_slice(),
            &message,
            b"}",
        ]
        .concat();
        for text in [
            br#"{"type":"connection_init"}"#.as_slice(),
            &message,
            &subscribe,
        ] {
            if stream.write_all(&frame(text)).is_err() {
                break;
            }
        }
        // A close frame, which is answered, or was sent before.
        let _ = stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    door.answers_an_honest_client();
}

/// A text frame, masked with zeros (RFC 6455, section 5.2).
fn frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text);
    frame
}
