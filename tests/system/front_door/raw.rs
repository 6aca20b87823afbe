//! Requests written byte by byte, because a client library would not send what must be refused.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

/// Time limit of a response: long enough for a busy machine, far shorter than the attacks took.
const LIMIT: Duration = Duration::from_secs(20);

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of the first error.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn message(&self) -> String {
        self.json()["errors"][0]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Opens a connection with time limits.
pub fn connect(port: u16) -> TcpStream {
    limited(TcpStream::connect(("127.0.0.1", port)).unwrap())
}

/// The same from another address than that of the system's own processes, so that limits per address count it
/// separately. All of 127/8 is this machine (RFC 1122, section 3.2.1.3), on Linux without configuration.
#[cfg(target_os = "linux")]
pub fn connect_from_elsewhere(port: u16) -> TcpStream {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    limited(TcpStream::from(socket))
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends a request. The given headers replace those that would be sent.
pub fn send(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    let is_given = |name: &str| {
        headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    if !is_given("host") {
        head.push_str(&format!("host: 127.0.0.1:{port}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = connect(port);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    read(&mut stream)
}

/// Reads a response to its end.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let is_chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Answer {
        status: head.split(' ').nth(1).unwrap_or("0").parse().unwrap(),
        head: head.to_owned(),
        body: if is_chunked {
            joined(body)
        } else {
            body.to_owned()
        },
    }
}

fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        body.push_str(rest.get(..length).unwrap_or(rest));
        chunks = rest.get(length + 2..).unwrap_or_default();
    }
    body
}

pub fn get(port: u16, target: &str, headers: &[(&str, &str)]) -> Answer {
    send(port, "GET", target, headers, b"")
}

/// Sends a GraphQL request with these headers in addition to its content type.
pub fn graphql_with(port: u16, headers: &[(&str, &str)], request: &Value) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    send(
        port,
        "POST",
        "/graphql",
        &headers,
        request.to_string().as_bytes(),
    )
}

pub fn graphql(port: u16, query: &str, variables: &Value) -> Answer {
    graphql_with(port, &[], &json!({"query": query, "variables": variables}))
}
