//! The bytes that the attacks send.

use std::fmt::Write;

use serde_json::json;

/// A POST of this JSON to the GraphQL endpoint.
pub fn post(body: &str) -> Vec<u8> {
    with_headers(body.as_bytes(), "content-type: application/json\r\n")
}

pub fn with_headers(body: &[u8], headers: &str) -> Vec<u8> {
    let mut request = format!(
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

pub fn query(document: &str) -> Vec<u8> {
    post(&json!({ "query": document }).to_string())
}

pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}\r\n")
        .into_bytes()
}

pub fn nested_variables(levels: usize) -> Vec<u8> {
    let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    post(&format!(
        r#"{{"query":"{{__typename}}","variables":{{"a":{nested}}}}}"#
    ))
}

pub fn doubling_fragments(count: usize) -> Vec<u8> {
    let mut document = String::from("{...f0}");
    for number in 0..count {
        let _ = write!(
            document,
            " fragment f{number} on Query{{...f{0} ...f{0}}}",
            number + 1
        );
    }
    let _ = write!(document, " fragment f{count} on Query{{__typename}}");
    query(&document)
}

pub fn multiplying() -> Vec<u8> {
    query(
        "{orders(customerId:\"1\",first:100){nodes{customer{orders(first:100){nodes{customer{orders(first:100){nodes{id}}}}}}}}}",
    )
}

pub fn aliases(count: usize) -> Vec<u8> {
    let fields: String = (0..count)
        .map(|number| format!("a{number}:__typename "))
        .collect();
    query(&format!("{{{fields}}}"))
}

pub fn directives(count: usize) -> Vec<u8> {
    query(&format!(
        "{{__typename{}}}",
        " @skip(if:false)".repeat(count)
    ))
}

pub fn many_ids(count: usize) -> Vec<u8> {
    let ids: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    post(&json!({"query": "query($ids:[ID!]!){__typename}", "variables": {"ids": ids}}).to_string())
}

/// A document with this many fields that is valid, within the limits, and different from all earlier ones.
pub fn fields(number: u64, count: usize) -> Vec<u8> {
    let fields = "id revision ".repeat(count / 2);
    query(&format!(
        "{{a{number}:customers(first:1){{nodes{{{fields}}}}}}}"
    ))
}

/// This many bytes of variables that the document does not use.
pub fn variables(bytes: usize) -> Vec<u8> {
    let numbers = "1,".repeat(bytes / 2);
    post(&format!(
        r#"{{"query":"{{__typename}}","variables":{{"a":[{numbers}1]}}}}"#
    ))
}

/// A frame from a client (RFC 6455, section 5.2), masked with zeros.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(1, payload.as_bytes())
}

pub fn handshake() -> Vec<u8> {
    b"GET /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n".to_vec()
}

pub fn init() -> Vec<u8> {
    text(r#"{"type":"connection_init"}"#)
}

pub fn subscribe(id: u64) -> Vec<u8> {
    text(&format!(
        r#"{{"id":"{id}","type":"subscribe","payload":{{"query":"subscription{{orderUpdated{{cursor}}}}"}}}}"#
    ))
}

pub fn complete(id: u64) -> Vec<u8> {
    text(&format!(r#"{{"id":"{id}","type":"complete"}}"#))
}
