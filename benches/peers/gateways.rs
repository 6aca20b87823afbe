//! Gateways on the same subgraphs: ours, Apollo's for Node and the Hive Gateway for Node, each in one process.

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use serde_json::json;
use tandem_backends::free_port;
use tokio::runtime::Runtime;

use crate::{
    Peers,
    report::{self, Bars, say},
    shared::{LeanClient, call_times, median, percentile, resident_mib},
    support::{
        Client, Process, Tandem,
        graph::{CREATE, PLACE, customer_input, order_input},
        poll,
    },
};

/// An odd number, for the median.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// A Node process compiles code while it runs.
const WARM_UP: Duration = Duration::from_secs(8);
const CUSTOMERS: usize = 200;
const ORDERS: usize = 3;

const ONE: &str = "query($id: ID!) { customer(id: $id) {
    id name { firstName lastName } contact { email primaryPhone } addresses { type city postalCode } revision } }";
const BOTH: &str = "query($id: ID!) { customer(id: $id) {
    id name { firstName lastName } contact { email } revision
    orders(first: 10) { nodes { id status total items { quantity product { title price } } } } } }";

/// The queries with their names.
const QUERIES: [(&str, &str); 2] = [("of accounts alone", ONE), ("of both services", BOTH)];

/// The definitions in the supergraph that control access.
const DEFINITIONS: [&str; 3] = [
    "directive @requiresScopes",
    "directive @authenticated",
    "scalar requiresScopes",
];

struct Gateway {
    name: String,
    url: String,
    process: u32,
    _process: Option<Process>,
}

fn id(number: usize) -> String {
    format!("peer-{:04}", number % CUSTOMERS)
}

/// Measures all gateways on the embedded store.
pub fn measure(runtime: &Runtime, peers: &Peers) {
    let tandem = Tandem::start();
    prepare(runtime, &tandem);
    let directory = tempfile::tempdir().unwrap();
    let supergraph = directory.path().join("supergraph.graphql");
    fs::write(&supergraph, for_others(&tandem)).unwrap();
    let modules = peers.directory(&format!(
        "gateways-{}-{}-{}",
        peers.version("APOLLO_GATEWAY"),
        peers.version("APOLLO_SERVER"),
        peers.version("HIVE_GATEWAY")
    ));
    let modules = modules.join("node_modules");
    let gateways = [
        Gateway {
            name: "Tandem".to_owned(),
            url: tandem.gateway_url("/graphql"),
            process: tandem.child("router").unwrap(),
            _process: None,
        },
        apollo(peers, &modules, &supergraph),
        hive(peers, &modules, &supergraph),
    ];
    say!("# Gateways on the same two services, embedded store");
    for gateway in &gateways {
        until_answered(gateway);
        for (_, query) in QUERIES {
            run(runtime, gateway, query, 16, WARM_UP);
        }
    }
    say!(
        "{:<58} {:>9} {:>9} {:>9} {:>9}",
        "",
        "p50 µs",
        "p99 µs",
        "/s at 64",
        "MiB"
    );
    let series: Vec<&str> = gateways.iter().map(|it| it.name.as_str()).collect();
    let mut groups = Vec::new();
    for (name, query) in QUERIES {
        let mut figures = vec![Vec::new(); gateways.len()];
        for _ in 0..ROUNDS {
            for (gateway, figures) in gateways.iter().zip(&mut figures) {
                let one = run(runtime, gateway, query, 1, ROUND);
                let many = run(runtime, gateway, query, 64, ROUND);
                let rate = many.len() as f64 / ROUND.as_secs_f64();
                figures.push([percentile(&one, 0.5), percentile(&one, 0.99), rate]);
            }
        }
        let mut rates = Vec::new();
        for (gateway, figures) in gateways.iter().zip(&figures) {
            let of = |part: usize| median(figures.iter().map(|round| round[part]).collect());
            say!(
                "a customer {name:<18} {:<28} {:>9.0} {:>9.0} {:>9.0} {:>9.0}",
                gateway.name,
                of(0),
                of(1),
                of(2),
                resident_mib(gateway.process),
            );
            rates.push(of(2));
        }
        groups.push((format!("a customer {name}"), rates));
    }
    report::bars(
        "gateways",
        &Bars {
            title: "Requests a second through a gateway, 64 in flight, the same services behind it",
            unit: "a second",
            series: &series,
            groups,
        },
    );
}

fn prepare(runtime: &Runtime, tandem: &Tandem) {
    let accounts = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    let orders = LeanClient::new(&tandem.orders_url("/graphql"), PLACE);
    runtime.block_on(async {
        for number in 0..CUSTOMERS {
            let input = customer_input(&id(number), "Lovelace");
            accounts.ask(json!({"input": input})).await;
        }
    });
    tandem.published(&Client::new());
    tandem.replicated(&Client::new(), &id(CUSTOMERS - 1), 1);
    runtime.block_on(async {
        for number in 0..CUSTOMERS * ORDERS {
            let input = order_input(&id(number));
            orders.ask(json!({"input": input})).await;
        }
    });
}

/// The supergraph with the URLs of this system's services, and without its definitions of access control. Access
/// control is off on a developer's machine, and Apollo's gateway for Node does not know it.
fn for_others(tandem: &Tandem) -> String {
    let text = include_str!("../../schema/supergraph.graphql")
        .replace(
            "http://127.0.0.1:8080/graphql",
            &tandem.accounts_url("/graphql"),
        )
        .replace(
            "http://127.0.0.1:8085/graphql",
            &tandem.orders_url("/graphql"),
        );
    let is_definition = |line: &&str| DEFINITIONS.iter().any(|start| line.starts_with(start));
    let kept: Vec<&str> = text.lines().filter(|line| !is_definition(line)).collect();
    let mut text = kept.join("\n").replace(" @authenticated", "");
    for begins in [
        " @requiresScopes(",
        " @link(url: \"https://specs.apollo.dev/requiresScopes",
        " @link(url: \"https://specs.apollo.dev/authenticated",
    ] {
        while let Some(begin) = text.find(begins) {
            let end = begin + text[begin..].find(')').unwrap() + 1;
            text.replace_range(begin..end, "");
        }
    }
    text
}

fn apollo(peers: &Peers, modules: &Path, supergraph: &Path) -> Gateway {
    let port = free_port().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/apollo.cjs");
    let mut command = Command::new("node");
    command
        .env("NODE_ENV", "production")
        .env("NODE_PATH", modules)
        .arg(script)
        .arg(supergraph)
        .arg(port.to_string());
    let process = Process::start(&mut command);
    Gateway {
        name: format!("Apollo gateway {} (Node)", peers.version("APOLLO_GATEWAY")),
        url: format!("http://127.0.0.1:{port}/"),
        process: process.id(),
        _process: Some(process),
    }
}

fn hive(peers: &Peers, modules: &Path, supergraph: &Path) -> Gateway {
    let port = free_port().unwrap();
    let program = fs::canonicalize(modules.join(".bin/hive-gateway")).unwrap();
    let mut command = Command::new("node");
    command
        .env("NODE_ENV", "production")
        .arg(program)
        .arg("supergraph")
        .arg(supergraph)
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--jit"]);
    let process = Process::start(&mut command);
    Gateway {
        name: format!("Hive Gateway {} (Node)", peers.version("HIVE_GATEWAY")),
        url: format!("http://127.0.0.1:{port}/graphql"),
        process: process.id(),
        _process: Some(process),
    }
}

/// Waits for the gateway's first answer, which must be correct.
fn until_answered(gateway: &Gateway) {
    let client = Client::new();
    for (_, query) in QUERIES {
        let answer = poll(&format!("{} answers", gateway.name), || {
            let answer = client
                .try_graphql(&gateway.url, query, json!({"id": id(0)}))
                .ok()?;
            (answer["data"]["customer"]["id"] == id(0)).then_some(answer)
        });
        assert!(answer["errors"].is_null(), "{}: {answer}", gateway.name);
    }
}

/// The time of each call in microseconds, sorted.
fn run(
    runtime: &Runtime,
    gateway: &Gateway,
    query: &'static str,
    in_flight: usize,
    round: Duration,
) -> Vec<f64> {
    let client = Arc::new(LeanClient::new(&gateway.url, query));
    let mut times = call_times(runtime, in_flight, round, move |number| {
        let client = Arc::clone(&client);
        async move { drop(client.ask(json!({"id": id(number)})).await) }
    });
    times.sort_by(f64::total_cmp);
    times
}
