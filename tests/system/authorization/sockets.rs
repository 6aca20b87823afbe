//! A WebSocket of either protocol, with a token if a test needs one.

use std::{net::TcpStream, time::Duration};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client::IntoClientRequest};

use crate::support::LIMIT;

pub struct Socket {
    socket: WebSocket<TcpStream>,
    protocol: &'static str,
}

impl Socket {
    pub fn open(port: u16, protocol: &'static str) -> Self {
        Self::open_with(port, protocol, None)
    }

    /// Opens a connection. Its handshake carries the token, if there is one.
    pub fn open_with(port: u16, protocol: &'static str, token: Option<&str>) -> Self {
        let mut request = format!("ws://127.0.0.1:{port}/graphql/ws")
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(LIMIT + Duration::from_secs(240)))
            .unwrap();
        let (socket, _) = tokio_tungstenite::tungstenite::client(request, stream).unwrap();
        Self { socket, protocol }
    }

    pub fn say(&mut self, message: &Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
    }

    /// Sends `connection_init`, with the token in its payload, if there is one.
    pub fn init(&mut self, token: Option<&str>) {
        let message = match token {
            Some(token) => {
                let payload = json!({"Authorization": format!("Bearer {token}")});
                json!({"type": "connection_init", "payload": payload})
            }
            None => json!({"type": "connection_init"}),
        };
        self.say(&message);
        assert_eq!(self.hear()["type"], "connection_ack");
    }

    /// Begins an operation of any kind.
    pub fn subscribe(&mut self, id: &str, query: &str, variables: &Value) {
        let kind = if self.protocol == "graphql-ws" {
            "start"
        } else {
            "subscribe"
        };
        let payload = json!({"query": query, "variables": variables});
        self.say(&json!({"type": kind, "id": id, "payload": payload}));
    }

    /// The next message. Skips pings.
    pub fn hear(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// The next response or error of an operation, in the form of a response.
    pub fn result(&mut self, id: &str) -> Value {
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
