//! The attacks: what one attacker does until it is stopped. Attackers connect from 127.0.0.2, so that limits per
//! address affect only them.

use std::{
    future::Future,
    io::Write as _,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::messages::{
    aliases, complete, directives, doubling_fragments, fields, frame, get, handshake, init,
    many_ids, multiplying, nested_variables, post, query, subscribe, variables, with_headers,
};

type Attacker = Pin<Box<dyn Future<Output = u64> + Send>>;
type Stop = Arc<AtomicBool>;

/// An attack by several clients at once.
pub struct Attack {
    pub name: &'static str,
    /// Runs one attacker: the gateway's address, the attacker's number, and when to stop. Returns how many attacks it
    /// made.
    pub by: Box<dyn Fn(String, usize, Stop) -> Attacker>,
}

async fn connect(address: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket
        .bind("127.0.0.2:0".parse::<SocketAddr>().ok()?)
        .ok()?;
    let connecting = socket.connect(address.parse().ok()?);
    let stream = tokio::time::timeout(Duration::from_secs(2), connecting).await;
    stream.ok()?.ok()
}

/// Sends bytes and reads the response to its end, for two seconds at most.
async fn exchange(address: &str, bytes: &[u8]) {
    let Some(mut stream) = connect(address).await else {
        // A refused connection costs the attacker as much as us, so the attacker must not retry faster than this.
        return tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let talk = async {
        stream.write_all(bytes).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), talk).await;
}

/// Sends requests one after the other, each on a new connection.
fn flood<R>(name: &'static str, request: impl Fn(u64) -> R + Send + Sync + 'static) -> Attack
where
    R: AsRef<[u8]> + Send + Sync + 'static,
{
    let request = Arc::new(request);
    let by = move |address: String, number: usize, stop: Stop| -> Attacker {
        let request = Arc::clone(&request);
        Box::pin(async move {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                exchange(&address, request(sent * 1_000 + number as u64).as_ref()).await;
                sent += 1;
            }
            sent
        })
    };
    Attack {
        name,
        by: Box::new(by),
    }
}

/// Sends the same bytes every time, so that making them takes no processor time.
fn same(name: &'static str, request: Vec<u8>) -> Attack {
    let request: Arc<[u8]> = request.into();
    flood(name, move |_| Arc::clone(&request))
}

/// Opens one connection after the other, and runs this on each.
fn on_connections<F>(name: &'static str, act: fn(TcpStream, Stop) -> F) -> Attack
where
    F: Future<Output = u64> + Send + 'static,
{
    let by = move |address: String, _: usize, stop: Stop| -> Attacker {
        Box::pin(async move {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                match connect(&address).await {
                    Some(stream) => sent += act(stream, Arc::clone(&stop)).await,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
            sent
        })
    };
    Attack {
        name,
        by: Box::new(by),
    }
}

/// Holds many connections open. In each round, `drip` may send a byte on each of them.
fn held<F>(name: &'static str, count: usize, begin: &'static [u8], drip: F) -> Attack
where
    F: Fn(u64) -> Option<u8> + Send + Sync + 'static,
{
    let drip = Arc::new(drip);
    let by = move |address: String, _: usize, stop: Stop| -> Attacker {
        let drip = Arc::clone(&drip);
        Box::pin(async move {
            let mut streams = Vec::new();
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                while streams.len() < count {
                    let Some(mut stream) = connect(&address).await else {
                        break;
                    };
                    if stream.write_all(begin).await.is_ok() {
                        streams.push(stream);
                    }
                }
                let mut open = Vec::new();
                for mut stream in streams {
                    let is_open = match drip(round) {
                        Some(byte) => stream.write_all(&[byte]).await.is_ok(),
                        None => true,
                    };
                    if is_open {
                        open.push(stream);
                    }
                }
                streams = open;
                round += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            streams.len() as u64
        })
    };
    Attack {
        name,
        by: Box::new(by),
    }
}

/// Opens a WebSocket and discards what it receives in the background.
async fn socket(mut stream: TcpStream) -> Option<tokio::net::tcp::OwnedWriteHalf> {
    stream.write_all(&handshake()).await.ok()?;
    let mut answer = [0; 1_024];
    let reading = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut answer));
    reading.await.ok()?.ok()?;
    let (mut read, mut write) = stream.into_split();
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
    });
    write.write_all(&init()).await.ok()?;
    Some(write)
}

async fn many_subscriptions(stream: TcpStream, stop: Stop) -> u64 {
    let Some(mut write) = socket(stream).await else {
        return 0;
    };
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) && sent < 12_000 {
        if write.write_all(&subscribe(sent)).await.is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

async fn subscribe_and_complete(stream: TcpStream, stop: Stop) -> u64 {
    let Some(mut write) = socket(stream).await else {
        return 0;
    };
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut both = subscribe(sent);
        both.extend(complete(sent));
        if write.write_all(&both).await.is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

async fn pings(stream: TcpStream, stop: Stop) -> u64 {
    let Some(mut write) = socket(stream).await else {
        return 0;
    };
    let ping = frame(9, &[0; 100]);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) && write.write_all(&ping).await.is_ok() {
        sent += 1;
    }
    sent
}

async fn handshakes(mut stream: TcpStream, _stop: Stop) -> u64 {
    let mut answer = [0; 1_024];
    let _ = stream.write_all(&handshake()).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
    1
}

async fn connects(stream: TcpStream, _stop: Stop) -> u64 {
    drop(stream);
    1
}

fn squeezed(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; bytes]).unwrap();
    encoder.finish().unwrap()
}

/// All attacks. The first is the floor: clients that send small legal queries as fast as they can.
pub fn attacks() -> Vec<Attack> {
    let introspection = "{__schema{types{fields{type{fields{type{fields{type{name}}}}}}}}}";
    let bomb = with_headers(
        &squeezed(50 * 1024 * 1024),
        "content-type: application/json\r\ncontent-encoding: gzip\r\n",
    );
    vec![
        same("(floor) legal queries", query("{__typename}")),
        same("nested variables", nested_variables(11_000)),
        same("deep selections", query(&"{a".repeat(4_000))),
        same("fragments that double", doubling_fragments(24)),
        same("connections times connections", multiplying()),
        flood("names of 50 KB, each another", |number| {
            query(&format!("query a{number}{}{{__typename}}", "x".repeat(50_000)))
        }),
        on_connections("12,000 subscriptions a socket", many_subscriptions),
        on_connections("subscribe and complete", subscribe_and_complete),
        same(
            "media type of a form",
            with_headers(b"{\"query\":\"{__typename}\"}", "content-type: text/plain; application/json\r\n"),
        ),
        same("what does not parse", query("{a{b{\"a string token that is long\"}}}")),
        held("slow headers", 400, b"GET /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ", |_| Some(b'a')),
        held("idle connections", 400, b"", |_| None),
        same("(own) 5,000 aliases", aliases(5_000)),
        same("(own) 3,000 directives", directives(3_000)),
        same("(own) bodies of 8 MB", post(&" ".repeat(8 * 1024 * 1024))),
        same("(own) gzip of 50 MB", bomb),
        same("(own) 2,000 headers", get("/graphql", &"x-a: b\r\n".repeat(2_000))),
        same("(own) introspection in itself", query(introspection)),
        same("(own) 50,000 ids", many_ids(50_000)),
        flood("(own) 2,400 fields, each another", |number| fields(number, 2_400)),
        flood("(own) 100 fields, each another", |number| fields(number, 100)),
        same("(own) variables of 1 MB", variables(1_000_000)),
        flood("(own) hashes that nobody knows", |number| {
            post(&format!(r#"{{"extensions":{{"persistedQuery":{{"version":1,"sha256Hash":"{number:064x}"}}}}}}"#))
        }),
        same("(own) long ids by REST", get(&format!("/orders/order/{}", "9".repeat(7_000)), "")),
        on_connections("(own) pings", pings),
        on_connections("(own) handshakes without init", handshakes),
        on_connections("(own) connections alone", connects),
        held(
            "(own) slow bodies",
            400,
            b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n",
            |_| Some(b' '),
        ),
    ]
}
