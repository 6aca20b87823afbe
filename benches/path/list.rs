//! What the list of all customers costs: how soon it begins, how fast it goes on, and how much memory it takes. The
//! floor is the bare driver reading all documents.

use std::time::Instant;

use mongodb::{
    Client,
    bson::{Document, RawDocumentBuf, doc},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};

use crate::{
    reads::known_customer,
    report::say,
    shared::{median, resident_mib},
    support::Tandem,
};

/// Customers that are added. They have no orders.
const CUSTOMERS: usize = 100_000;
/// Rows per insert command.
const AT_ONCE: usize = 5_000;
const ROUNDS: usize = 5;

/// Measures the list at the service and through the gateway.
pub fn measure(runtime: &Runtime, tandem: &Tandem, bare: &Client) {
    let rows = bare
        .database("orders")
        .collection::<Document>("customer.orders");
    let count = runtime.block_on(async {
        let mut row = rows
            .find_one(doc! { "_id": known_customer(0) })
            .await
            .unwrap()
            .unwrap();
        for first in (0..CUSTOMERS).step_by(AT_ONCE) {
            let more = (first..first + AT_ONCE).map(|number| {
                row.insert("_id", format!("list-{number:06}"));
                row.clone()
            });
            rows.insert_many(more.collect::<Vec<_>>()).await.unwrap();
        }
        rows.count_documents(doc! {}).await.unwrap() as f64
    });
    say!("\n{count} customers, most without orders: GET /orders/list");
    say!(
        "{:<10} {:>14} {:>14} {:>14} {:>10}",
        "",
        "first byte ms",
        "customers/s",
        "bare find/s",
        "ratio"
    );
    for (name, url) in [
        ("service", tandem.orders_url("")),
        ("gateway", tandem.gateway_url("")),
    ] {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let (first, whole) = runtime.block_on(read_to_the_end(&url));
                let bare = runtime.block_on(read_all(&rows.clone_with_type()));
                (first * 1_000.0, count / whole, count / bare)
            })
            .collect();
        let of = |part: fn(&(f64, f64, f64)) -> f64| median(rounds.iter().map(part).collect());
        say!(
            "{name:<10} {:>14.1} {:>14.0} {:>14.0} {:>10.2}",
            of(|round| round.0),
            of(|round| round.1),
            of(|round| round.2),
            of(|round| round.1 / round.2),
        );
    }
    let resident = resident_mib(tandem.child("orders").unwrap());
    say!("resident after that: orders {resident:.1} MiB");
}

/// Seconds until the first byte of the body, and until its end.
async fn read_to_the_end(url: &str) -> (f64, f64) {
    let authority = url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(authority).await.unwrap();
    let begun = Instant::now();
    let request =
        format!("GET /orders/list HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let (mut head, mut first, mut last) = (Vec::new(), None, Vec::new());
    loop {
        let read = connection.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        if first.is_none() {
            head.extend_from_slice(&buffer[..read]);
            let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if end.is_some_and(|end| head.len() > end + 4) {
                first = Some(begun.elapsed().as_secs_f64());
            }
        }
        last.extend_from_slice(&buffer[..read]);
        let kept = last.len().saturating_sub(16);
        last.drain(..kept);
    }
    assert!(last.ends_with(b"0\r\n\r\n"), "the list broke off");
    (first.unwrap(), begun.elapsed().as_secs_f64())
}

/// Seconds that the driver takes to read all documents.
async fn read_all(rows: &mongodb::Collection<RawDocumentBuf>) -> f64 {
    let begun = Instant::now();
    let mut cursor = rows.find(doc! {}).await.unwrap();
    while cursor.advance().await.unwrap() {
        std::hint::black_box(cursor.current());
    }
    begun.elapsed().as_secs_f64()
}
