//! Clients that read slowly, or not at all: their responses wait within limits, and nobody else waits.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};

use super::*;
use crate::support::{graph::customer_input, poll_for};

/// Large enough to fill the kernel's buffers between both ends, which may hold more than twice the 4 MiB of `tcp_wmem`,
/// and below the limit of a response.
const LEAST: usize = 12 << 20;
/// A port disconnects a client that reads nothing after 30 s. This is how long the test waits for it.
const GIVEN_UP: Duration = Duration::from_secs(120);

/// A customer as large as allowed, and a query that returns it many times.
fn large(tandem: &Tandem, client: &Client) -> String {
    let mut input = customer_input("large", "Reader");
    let text = "x".repeat(200);
    let address = json!({"type": "SHIPPING", "description": "y".repeat(1_000), "address1": text, "address2": text,
        "city": text, "state": text, "postalCode": "1"});
    input["addresses"] = vec![address; 100].into();
    const CREATE: &str = "mutation($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }";
    client.data(
        &tandem.accounts_url("/graphql"),
        CREATE,
        json!({"input": input}),
    );
    let one = "customer(id:\"large\"){addresses{description address1 address2 city state}}";
    let all: String = (0..75).map(|number| format!("a{number}:{one} ")).collect();
    format!("{{{all}}}")
}

/// A connection with a small receive buffer.
pub(super) fn narrow(port: u16) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4_096).unwrap();
    connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

/// Sends a query and does not read the response.
fn ask(port: u16, query: &str) -> TcpStream {
    let mut stream = narrow(port);
    let body = json!({"query": query}).to_string();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    stream
}

/// Reads the head of a response. Returns the length of its body, and how much of it has arrived.
fn begin(stream: &mut TcpStream) -> (usize, usize) {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "no head");
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("http/1.1 200"), "{text}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length = length.unwrap_or_else(|| panic!("no length: {head}"));
            return (length.trim().parse().unwrap(), rest.len());
        }
    }
}

/// The ports that can send such a large response.
fn wide_ports(tandem: &Tandem) -> [(&'static str, u16); 2] {
    [("gateway", tandem.gateway), ("accounts", tandem.accounts)]
}

#[test]
fn an_answer_that_is_read_slowly_is_given_whole_however_soon_the_next_request_is_expected() {
    let tandem = Tandem::builder()
        .env("TANDEM_IDLE_TIMEOUT_SECONDS", "1")
        .env("TANDEM_HEADER_TIMEOUT_SECONDS", "1")
        .start();
    let query = large(&tandem, &Client::new());
    for (name, port) in wide_ports(&tandem) {
        let mut stream = ask(port, &query);
        let (length, mut read) = begin(&mut stream);
        assert!(length > LEAST, "{name}: {length}");
        // Reads slowly at first, for longer than a request's time limit, and then the rest.
        let begun = Instant::now();
        let mut part = vec![0; 64 << 10];
        while read < length {
            if begun.elapsed() < Duration::from_secs(4) {
                std::thread::sleep(Duration::from_millis(100));
            }
            let more = stream.read(&mut part).unwrap();
            assert!(more > 0, "{name}: {read} of {length}");
            read += more;
        }
        assert_eq!(read, length, "{name}");
    }
}

#[test]
fn a_client_that_reads_nothing_costs_itself_alone_and_is_given_up() {
    let tandem = Tandem::start();
    let query = large(&tandem, &Client::new());
    for (name, port) in wide_ports(&tandem) {
        let asked: Vec<TcpStream> = (0..3).map(|_| ask(port, &query)).collect();
        let mut silent = Vec::new();
        for mut stream in asked {
            let (length, read) = begin(&mut stream);
            assert!(
                length > LEAST && read < length,
                "{name}: {read} of {length}"
            );
            silent.push(stream);
        }
        all_answer(&tandem);
        poll_for(
            GIVEN_UP,
            "they are given up, and nobody waits for them",
            || {
                all_answer(&tandem);
                silent.retain(|stream| {
                    // The kernel does not keep the rest for them either.
                    let error = stream.take_error().unwrap();
                    error.is_none_or(|error| error.kind() != ErrorKind::ConnectionReset)
                });
                silent.is_empty().then_some(())
            },
        );
    }
}
