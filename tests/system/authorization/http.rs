//! Requests with any method and media type, with or without a token, and the first response of a stream that may not
//! end.

use reqwest::{
    Method, RequestBuilder,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE},
};
use serde_json::Value;
use tokio::{runtime::Runtime, time::timeout};

use crate::support::LIMIT;

pub struct Http {
    runtime: Runtime,
    client: reqwest::Client,
}

/// A complete response.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    /// The length in the header.
    pub length: Option<u64>,
    pub body: String,
}

/// A request to a URL.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub accept: &'static str,
    pub body: Option<Value>,
}

impl Request {
    pub fn get(url: impl Into<String>, accept: &'static str) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            accept,
            body: None,
        }
    }

    pub fn post(url: impl Into<String>, accept: &'static str, body: Value) -> Self {
        Self {
            method: Method::POST,
            body: Some(body),
            ..Self::get(url, accept)
        }
    }
}

impl Http {
    pub fn new() -> Self {
        Self {
            runtime: Runtime::new().unwrap(),
            client: reqwest::Client::new(),
        }
    }

    fn request(&self, request: &Request, token: Option<&str>) -> RequestBuilder {
        let mut sent = self
            .client
            .request(request.method.clone(), &request.url)
            .header(ACCEPT, request.accept);
        if let Some(token) = token {
            sent = sent.bearer_auth(token);
        }
        if let Some(body) = &request.body {
            sent = sent
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        sent
    }

    /// The complete response.
    pub fn whole(&self, request: &Request, token: Option<&str>) -> Whole {
        let sent = self.request(request, token).timeout(LIMIT);
        self.runtime.block_on(async {
            let answer = sent.send().await.unwrap();
            let length = answer.headers().get(CONTENT_LENGTH);
            Whole {
                status: answer.status().as_u16(),
                length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
                body: answer.text().await.unwrap(),
            }
        })
    }

    /// The first GraphQL response in a response body: the whole body, its first event, or its first part.
    pub fn first(&self, request: &Request, token: Option<&str>) -> Value {
        let sent = self.request(request, token);
        self.runtime.block_on(async {
            let reading = async {
                let mut answer = sent.send().await.unwrap();
                let mut read = Vec::new();
                while let Some(chunk) = answer.chunk().await.unwrap() {
                    read.extend_from_slice(&chunk);
                    if let Some(response) = first_response(&String::from_utf8_lossy(&read)) {
                        return response;
                    }
                }
                panic!(
                    "no response to {request:?}: {}",
                    String::from_utf8_lossy(&read)
                );
            };
            timeout(LIMIT, reading).await.unwrap()
        })
    }
}

/// Events and parts have their JSON on one line each. Multipart wraps a response in `payload`; an empty object is a
/// heartbeat.
fn first_response(text: &str) -> Option<Value> {
    text.lines().find_map(|line| {
        let json = line.strip_prefix("data:").unwrap_or(line).trim();
        let read: Value = serde_json::from_str(json).ok()?;
        let response = match read.get("payload") {
            Some(payload) if payload.is_object() => payload.clone(),
            _ => read,
        };
        let is_response = response
            .as_object()
            .is_some_and(|object| !object.is_empty());
        is_response.then_some(response)
    })
}
