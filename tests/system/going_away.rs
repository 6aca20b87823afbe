//! Callers that disconnect: a command that has begun is executed completely, and its event is published as fast as any
//! other.

use std::{
    collections::BTreeSet,
    io::Write,
    net::{Shutdown, TcpStream},
    time::Duration,
};

use rdkafka::ClientConfig;
use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem, TandemBuilder,
    checker::{CUSTOMER_TOPIC, ORDER_TOPIC, whole_topic},
    graph::{CREATE, PLACE, SAMPLE_BODY, customer_input, order_input},
    poll, poll_for,
    site::Site,
};

/// Requests of each kind. Each one is cancelled a little later than the previous one.
const REQUESTS: u64 = 120;
/// The time between two such cancellations.
const STEP: Duration = Duration::from_micros(120);
/// The relay would find an event without a hint only in its sweep, which does not happen in this test.
const PROMPT: Duration = Duration::from_secs(20);

/// Only the command's own hint brings an event to the topic.
fn without_sweeps(builder: TandemBuilder) -> TandemBuilder {
    builder
        .env("TANDEM_OUTBOX_SWEEP_MS", "3600000")
        .env("TANDEM_OUTBOX_ORPHAN_MS", "3600000")
}

/// Sends a request and closes the connection after a while, whether or not a response has arrived.
fn give_up(port: u16, path: &str, body: &str, after: Duration) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .unwrap();
    std::thread::sleep(after);
    // The service may have closed it already.
    let _ = stream.shutdown(Shutdown::Both);
}

fn operation(query: &str, variables: &Value) -> String {
    json!({"query": query, "variables": variables}).to_string()
}

/// All ids in a list of the service at this address.
fn kept(client: &Client, url: &str, list: &str) -> BTreeSet<String> {
    let query = format!(
        "query($after: String) {{ page: {list}(first: 100, after: $after) {{
            nodes {{ id }} pageInfo {{ hasNextPage endCursor }} }} }}"
    );
    let mut all = BTreeSet::new();
    let mut after = Value::Null;
    loop {
        let page = client.data(url, &query, json!({"after": after}))["page"].clone();
        for node in page["nodes"].as_array().unwrap() {
            all.insert(node["id"].as_str().unwrap().to_owned());
        }
        if page["pageInfo"]["hasNextPage"] == json!(false) {
            return all;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}

/// The stored ids, once they no longer change.
fn settled(client: &Client, url: &str, list: &str) -> BTreeSet<String> {
    let mut before = kept(client, url, list);
    poll("requests under way have ended", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = kept(client, url, list);
        let is_settled = now == before;
        before = now;
        is_settled.then_some(())
    });
    before
}

fn what_is_kept_is_published(tandem: &Tandem) {
    let client = Client::new();
    tandem.customer(&client, "buyer");
    let (accounts, orders, gateway) = (tandem.accounts, tandem.orders, tandem.gateway);
    std::thread::scope(|threads| {
        for number in 0..REQUESTS {
            let wait = STEP * u32::try_from(number).unwrap();
            let input = customer_input(&format!("direct-{number}"), "Lovelace");
            let direct = operation(CREATE, &json!({"input": input}));
            let input = customer_input(&format!("gateway-{number}"), "Lovelace");
            let through = operation(CREATE, &json!({"input": input}));
            let mut rest: Value = serde_json::from_str(SAMPLE_BODY).unwrap();
            rest["id"] = json!(format!("rest-{number}"));
            let order = operation(PLACE, &json!({"input": order_input("buyer")}));
            threads.spawn(move || give_up(accounts, "/graphql", &direct, wait));
            threads.spawn(move || give_up(gateway, "/graphql", &through, wait));
            threads.spawn(move || {
                let path = "/accounts/customer/create";
                give_up(accounts, path, &rest.to_string(), wait);
            });
            threads.spawn(move || give_up(orders, "/graphql", &order, wait));
            if number % 20 == 19 {
                // Limits concurrency, because a request that is refused for the number of requests is not stored.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", tandem.bootstrap_servers());
    for (url, list, topic) in [
        (tandem.accounts_url("/graphql"), "customers", CUSTOMER_TOPIC),
        (tandem.orders_url("/graphql"), "orders", ORDER_TOPIC),
    ] {
        let kept = settled(&client, &url, list);
        assert!(kept.len() > 10, "only {} {list} were kept", kept.len());
        poll_for(
            PROMPT,
            &format!("all {list} that are kept are in the log"),
            || {
                let logged: BTreeSet<String> = whole_topic(&kafka, topic)
                    .into_iter()
                    .map(|event| event.key)
                    .collect();
                kept.is_subset(&logged).then_some(())
            },
        );
    }
}

#[test]
fn what_is_kept_of_callers_who_went_away_is_published_promptly() {
    what_is_kept_is_published(&without_sweeps(Tandem::builder()).start());
}

#[test]
fn what_is_kept_of_callers_who_went_away_is_published_promptly_on_real_servers() {
    require!(mongod, kafka);
    let site = Site::on_real_servers_with(without_sweeps);
    what_is_kept_is_published(&site.tandem);
}
