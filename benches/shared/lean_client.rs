//! A client with little overhead. It shares the processors with the services, so its own work is part of what is
//! measured. A general client took an eighth of a creation's time, and a larger part of the bare driver's beside it.
//!
//! HTTP/1.1 over kept connections, one per request in flight. It reads only responses with a `Content-Length` (RFC
//! 9112).

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

/// The most headers of a response.
const HEADERS: usize = 32;

/// Sends requests to one service.
#[derive(Debug)]
pub struct LeanClient {
    authority: String,
    path: String,
    query: &'static str,
    /// Headers of each request, each with its line end.
    headers: String,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl LeanClient {
    /// A client for `query` at this address. It connects at the first request.
    pub fn new(url: &str, query: &'static str) -> Self {
        let url: Url = url.parse().unwrap();
        Self {
            authority: url.authority().to_owned(),
            path: url.path().to_owned(),
            query,
            headers: String::new(),
            idle: Mutex::default(),
        }
    }

    /// The same client with this bearer token.
    #[must_use]
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        if let Some(token) = token {
            self.headers = format!("authorization: Bearer {token}\r\n");
        }
        self
    }

    /// A client for the paths below this address.
    pub fn plain(url: &str) -> Self {
        Self::new(url, "")
    }

    /// Sends the operation with these variables and waits for the response, which must have no errors.
    pub async fn ask(&self, variables: Value) -> Vec<u8> {
        let body = json!({"query": self.query, "variables": variables}).to_string();
        let answer = self.post(&self.path, &body).await;
        let text = std::str::from_utf8(&answer).unwrap();
        assert!(!text.contains("\"errors\""), "{text}");
        answer
    }

    /// Sends JSON to a path and waits for the body of a successful response.
    pub async fn post(&self, path: &str, body: &str) -> Vec<u8> {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.authority,
            self.headers,
            body.len(),
        ))
        .await
    }

    /// Gets a path and waits for the body of a successful response.
    pub async fn get(&self, path: &str) -> Vec<u8> {
        let (authority, headers) = (&self.authority, &self.headers);
        self.send(format!(
            "GET {path} HTTP/1.1\r\nhost: {authority}\r\n{headers}\r\n"
        ))
        .await
    }

    async fn send(&self, request: String) -> Vec<u8> {
        loop {
            let idle = self.idle.lock().unwrap().pop();
            let is_new = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Connection::open(&self.authority).await,
            };
            let sent = connection.stream.write_all(request.as_bytes()).await;
            if let (Ok(()), Some(body)) = (sent, connection.receive().await) {
                self.idle.lock().unwrap().push(connection);
                return body;
            }
            // A service closes connections that are idle for long (RFC 9112, section 9.3.1), so only a new one must not
            // be closed.
            assert!(!is_new, "the service closed the connection");
        }
    }
}

impl Connection {
    async fn open(authority: &str) -> Self {
        let stream = TcpStream::connect(authority).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            received: Vec::with_capacity(4_096),
        }
    }

    /// The body of a response. `None` if the connection closes before any of it arrives.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        self.received.clear();
        loop {
            let read = self
                .stream
                .read_buf(&mut self.received)
                .await
                .unwrap_or_default();
            if read == 0 {
                assert!(self.received.is_empty(), "an answer broke off");
                return None;
            }
            if let Some(body) = self.answer() {
                return Some(body.to_vec());
            }
        }
    }

    /// The body, if the whole response has arrived. It must be successful.
    fn answer(&self) -> Option<&[u8]> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = head.parse(&self.received).unwrap() else {
            return None;
        };
        let length: usize = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
            .unwrap();
        let body = self.received.get(end..end + length)?;
        assert!(
            matches!(head.code, Some(200 | 201)),
            "{}",
            String::from_utf8_lossy(body)
        );
        Some(body)
    }
}
