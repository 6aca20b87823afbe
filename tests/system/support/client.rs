//! A client of the system: GraphQL by POST, live subscriptions by SSE, multipart and WebSocket, and plain HTTP.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use super::LIMIT;

/// A client with its own runtime, so that tests are written without async.
pub struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    token: Option<String>,
    /// The consistency token in the payload of `connection_init`.
    consistency: Option<String>,
}

/// The response to a plain HTTP request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    /// The length in the header.
    pub content_length: Option<u64>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

/// The transport of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    ServerSentEvents,
    Multipart,
    WebSocket,
}

/// A live subscription. Payloads are kept until they are read.
pub struct Subscription {
    payloads: Receiver<Value>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscription {
    /// The next payload (`{"data": …}`). Waits for it with a limit.
    #[track_caller]
    pub fn next(&self) -> Value {
        match self.payloads.recv_timeout(LIMIT) {
            Ok(payload) => payload,
            Err(RecvTimeoutError::Timeout) => panic!("no payload within {LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the subscription has ended"),
        }
    }

    /// Like [`Self::next_within`], but returns `Err` when the subscription has ended.
    pub fn poll(&self, limit: Duration) -> Result<Option<Value>, Ended> {
        match self.payloads.recv_timeout(limit) {
            Ok(payload) => Ok(Some(payload)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }

    /// The next payload if one arrives within the limit.
    pub fn next_within(&self, limit: Duration) -> Option<Value> {
        self.payloads.recv_timeout(limit).ok()
    }
}

/// The subscription has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended;

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        Self {
            runtime,
            http,
            token: None,
            consistency: None,
        }
    }

    /// A client that sends this token with each request.
    pub fn with_token(token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..Self::new()
        }
    }

    /// A client that sends this consistency token on its WebSockets.
    pub fn with_consistency(token: impl Into<String>) -> Self {
        Self {
            consistency: Some(token.into()),
            ..Self::new()
        }
    }

    /// The payload of `connection_init`.
    fn init(&self) -> Value {
        let mut payload = serde_json::Map::new();
        if let Some(token) = &self.token {
            payload.insert("authorization".into(), format!("Bearer {token}").into());
        }
        if let Some(token) = &self.consistency {
            payload.insert("consistency".into(), token.as_str().into());
        }
        payload.into()
    }

    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends an operation and returns the whole response. An unreachable server is an `Err`.
    pub fn try_graphql(&self, url: &str, query: &str, variables: Value) -> Result<Value, String> {
        let body = json!({"query": query, "variables": variables}).to_string();
        self.runtime.block_on(async {
            let response = self
                .signed(self.http.post(url))
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "application/json")
                .timeout(Duration::from_secs(30))
                .body(body)
                .send()
                .await
                .map_err(|error| error.to_string())?;
            let text = response.text().await.map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| format!("not JSON ({error}): {text}"))
        })
    }

    /// Sends an operation as part of a trace and returns the whole response.
    pub fn traced(&self, url: &str, traceparent: &str, query: &str, variables: Value) -> Value {
        let request = self
            .http
            .post(url)
            .header("traceparent", traceparent)
            .header(CONTENT_TYPE, "application/json")
            .body(json!({"query": query, "variables": variables}).to_string());
        self.answer(request).unwrap().json()
    }

    /// Sends an operation and returns the whole response.
    #[track_caller]
    pub fn graphql(&self, url: &str, query: &str, variables: Value) -> Value {
        self.try_graphql(url, query, variables).unwrap()
    }

    /// Sends an operation that must succeed and returns its data.
    #[track_caller]
    pub fn data(&self, url: &str, query: &str, variables: Value) -> Value {
        let response = self.graphql(url, query, variables);
        assert!(response["errors"].is_null(), "errors: {response:#}");
        response["data"].clone()
    }

    #[track_caller]
    pub fn get(&self, url: &str) -> Answer {
        self.answer(self.http.get(url)).unwrap()
    }

    /// The body of the response for this `Accept` header.
    #[track_caller]
    pub fn accepted(&self, url: &str, accept: &str) -> String {
        let request = self.http.get(url).header(ACCEPT, accept);
        self.answer(request).unwrap().body
    }

    #[track_caller]
    pub fn head(&self, url: &str) -> Answer {
        self.answer(self.http.head(url)).unwrap()
    }

    /// Like [`Self::get`], but returns `None` when there is no response.
    pub fn try_get(&self, url: &str) -> Option<Answer> {
        self.answer(self.http.get(url)).ok()
    }

    #[track_caller]
    pub fn post(&self, url: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, content_type)
            .body(body);
        self.answer(request).unwrap()
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        self.runtime.block_on(async {
            let request = self.signed(request).timeout(Duration::from_secs(30));
            let response = request.send().await?;
            let header = |name| response.headers().get(name)?.to_str().ok();
            Ok(Answer {
                status: response.status().as_u16(),
                content_type: header(CONTENT_TYPE).unwrap_or_default().to_owned(),
                content_length: header(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
                body: response.text().await?,
            })
        })
    }

    /// Opens a subscription at an HTTP address such as `http://127.0.0.1:9090/graphql`.
    pub fn subscribe(
        &self,
        transport: Transport,
        url: &str,
        query: &str,
        variables: Value,
    ) -> Subscription {
        let (payloads_out, payloads) = channel();
        let request = json!({"query": query, "variables": variables});
        let send = move |payload: Value| payloads_out.send(payload).is_ok();
        let task = match transport {
            Transport::WebSocket => {
                self.runtime
                    .spawn(web_socket(url.to_owned(), self.init(), request, send))
            }
            Transport::ServerSentEvents | Transport::Multipart => {
                let accept = if transport == Transport::Multipart {
                    "multipart/mixed;subscriptionSpec=\"1.0\", application/json"
                } else {
                    "text/event-stream"
                };
                let request = self
                    .signed(self.http.post(url))
                    .header(CONTENT_TYPE, "application/json")
                    .header(ACCEPT, accept)
                    .body(request.to_string());
                self.runtime.spawn(stream(request, transport, send))
            }
        };
        Subscription { payloads, task }
    }
}

/// Reads the body of a streaming response in pieces. A blank line separates events; a boundary separates parts.
async fn stream(
    request: reqwest::RequestBuilder,
    transport: Transport,
    send: impl Fn(Value) -> bool,
) {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            send(json!({"errors": [{"message": error.to_string()}]}));
            return;
        }
    };
    let mut body = response.bytes_stream();
    let mut text = String::new();
    while let Some(Ok(chunk)) = body.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk));
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            let line = line.trim_end();
            let json = match transport {
                Transport::Multipart => line.starts_with('{').then_some(line),
                _ => line.strip_prefix("data:").map(str::trim),
            };
            let Some(value) = json.and_then(|json| serde_json::from_str::<Value>(json).ok()) else {
                continue;
            };
            // Multipart wraps the result in `payload`; an empty object is a heartbeat.
            let value = if value.get("payload").is_some_and(Value::is_object) {
                value["payload"].clone()
            } else {
                value
            };
            if value.as_object().is_some_and(|object| !object.is_empty()) && !send(value) {
                return;
            }
        }
        // A multipart part may end without a line break until the next boundary arrives.
        if transport == Transport::Multipart
            && let Some(value) = text
                .trim()
                .strip_prefix('{')
                .and_then(|_| serde_json::from_str::<Value>(text.trim()).ok())
        {
            text.clear();
            if value.get("payload").is_some_and(Value::is_object) && !send(value["payload"].clone())
            {
                return;
            }
        }
    }
}

/// Speaks the `graphql-transport-ws` protocol.
async fn web_socket(url: String, init: Value, request: Value, send: impl Fn(Value) -> bool) {
    let address = url.replacen("http", "ws", 1);
    let mut handshake = address.into_client_request().unwrap();
    handshake.headers_mut().insert(
        "sec-websocket-protocol",
        "graphql-transport-ws".parse().unwrap(),
    );
    let (mut socket, _) = match tokio_tungstenite::connect_async(handshake).await {
        Ok(connected) => connected,
        Err(error) => {
            send(json!({"errors": [{"message": error.to_string()}]}));
            return;
        }
    };
    let init = json!({"type": "connection_init", "payload": init}).to_string();
    if socket.send(Message::text(init)).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        let value: Value = serde_json::from_str(&text).unwrap();
        let reply = match value["type"].as_str() {
            Some("connection_ack") => json!({"type": "subscribe", "id": "1", "payload": request}),
            Some("ping") => json!({"type": "pong"}),
            Some("next") => {
                if !send(value["payload"].clone()) {
                    return;
                }
                continue;
            }
            Some("error") => {
                send(json!({"errors": value["payload"]}));
                return;
            }
            _ => return,
        };
        if socket.send(Message::text(reply.to_string())).await.is_err() {
            return;
        }
    }
}
