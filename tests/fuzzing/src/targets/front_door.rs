//! The front door, over a socket. After each input an honest client must be answered, and what passes must fit the
//! schema.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tandem_front_door::graphql::{GraphQlRules, GraphSchema, Treatment};
use tandem_front_door::{FrontDoor, FrontDoorSettings, Stopper, Tasks, stop};

use super::{Reader, Target};
use crate::corpus::committed;

const SUPERGRAPH: &str = include_str!("../../../../schema/supergraph.graphql");
/// Time limit for a response, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);
/// An honest client sends a request after this many inputs.
const HONEST_EVERY: usize = 64;

pub(super) const REQUESTS: Target = Target {
    name: "requests",
    open: || at_a_door(|door, body| door.answers(body)),
    seeds: || committed("requests"),
};

pub(super) const DOCUMENTS: Target = Target {
    name: "documents",
    open: || {
        at_a_door(|door, document| {
            let text = String::from_utf8_lossy(document);
            let request = json!({"query": text, "variables": {"id": 1, "n": null}});
            door.answers(request.to_string().as_bytes());
        })
    },
    seeds: || committed("documents"),
};

pub(super) const HEADS: Target = Target {
    name: "heads",
    open: || at_a_door(|door, head| door.hears(&[head])),
    seeds: || committed("heads"),
};

pub(super) const SOCKETS: Target = Target {
    name: "sockets",
    open: || at_a_door(|door, frames| door.hears(&[door.handshake().as_bytes(), frames])),
    seeds: || {
        let init = frame(br#"{"type":"connection_init"}"#);
        let messages = committed("requests").into_iter().flat_map(|message| {
            let subscribe = [
                br#"{"id":"1","type":"subscribe","payload":"#.as_slice(),
                &message,
                b"}",
            ]
            .concat();
            [message, subscribe].map(|text| [init.as_slice(), &frame(&text), CLOSE].concat())
        });
        messages
            .collect::<Vec<_>>()
            .into_iter()
            .chain(committed("sockets"))
            .collect()
    },
};

/// A close frame, masked with zeros (RFC 6455, section 5.5.1).
const CLOSE: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];

fn at_a_door(reads: impl Fn(&Door, &[u8]) + 'static) -> Reader {
    let door = Door::open();
    let mut count = 0;
    Box::new(move |input| {
        reads(&door, input);
        count += 1;
        if count % HONEST_EVERY == 1 {
            door.answers_an_honest_client();
        }
    })
}

/// A front door with only an echo behind it.
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
        // Executed operations are valid and bounded: the echo parses them again.
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

    /// Sends a body. Returns the response.
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

    /// A request must be executed, or refused with a message.
    fn answers(&self, body: &[u8]) {
        let (status, answer) = self.send(body);
        assert!(
            matches!(status, 200 | 400 | 403 | 404 | 406 | 413 | 415 | 429),
            "{status} {answer}: {}",
            String::from_utf8_lossy(body)
        );
        let answer: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{error} in {status} {answer:?}"));
        let is_told = answer["errors"][0]["message"]
            .as_str()
            .is_some_and(|told| !told.is_empty());
        assert!(answer.get("data").is_some() || is_told, "{answer}");
    }

    /// The opening handshake of a WebSocket.
    fn handshake(&self) -> String {
        format!(
            "GET /graphql/ws HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n",
            self.port
        )
    }

    /// Whatever a client sends before it falls silent, the connection must end.
    fn hears(&self, said: &[&[u8]]) {
        let mut stream = self.connect();
        for part in said {
            if stream.write_all(part).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{error}: {said:?}"
            );
        }
    }
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
