//! Two gateways behind one address share nothing, and a client need not know to which one a connection goes.

use std::{
    io::copy,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};
use tandem_backends::free_port;

use super::support::{
    Client, Process, Signal, Tandem, Transport,
    graph::{CREATE, PLACE, customer_input, order_input},
    poll, tandem_command,
};

const FEED: &str = "subscription($after: String) { orderFeed(after: $after, heartbeatSeconds: 5) {
    ... on OrderUpdate { cursor order { id } } ... on Heartbeat { cursor } } }";

/// Another gateway of this system, on its own port.
fn gateway(tandem: &Tandem, directory: &std::path::Path) -> (Process, u16) {
    let port = free_port().unwrap();
    let process = Process::start(
        tandem_command()
            .arg("router")
            .args(["--port", &port.to_string()])
            .args(["--accounts-url", &tandem.accounts_url("")])
            .args(["--orders-url", &tandem.orders_url("")])
            .arg("--data-dir")
            .arg(directory),
    );
    let client = Client::new();
    poll("the second gateway is ready", || {
        let url = format!("http://127.0.0.1:{port}/actuator/health/readiness");
        let health = client.try_get(&url)?;
        (health.status == 200).then_some(())
    });
    (process, port)
}

/// An address that forwards connections to these ports in turn. If one does not answer, the next one is tried.
fn one_address(ports: [u16; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let turn = Arc::new(AtomicUsize::new(0));
    // It ends with the process of the tests.
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let turn = Arc::clone(&turn);
            thread::spawn(move || {
                let first = turn.fetch_add(1, Ordering::Relaxed);
                let connect = |index: usize| TcpStream::connect(("127.0.0.1", ports[index % 2]));
                let Ok(server) = connect(first).or_else(|_| connect(first + 1)) else {
                    return;
                };
                pass_on(&client, &server);
            });
        }
    });
    port
}

fn pass_on(client: &TcpStream, server: &TcpStream) {
    let one_way = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        })
    };
    let ways = [one_way(client, server), one_way(server, client)];
    ways.into_iter().for_each(|way| way.join().unwrap());
}

#[test]
fn two_gateways_behind_one_address_are_as_good_as_one() {
    let tandem = Tandem::start();
    let folder = tempfile::tempdir().unwrap();
    let (second, second_port) = gateway(&tandem, folder.path());
    let port = one_address([tandem.gateway, second_port]);
    let url = format!("http://127.0.0.1:{port}/graphql");
    // A new connection for each request, so that the gateways take turns.
    let ask = |query: &str, variables: Value| Client::new().data(&url, query, variables);

    // What is written through one gateway is read through the other.
    for number in 0..6 {
        let id = format!("c{number}");
        ask(CREATE, json!({"input": customer_input(&id, "Lovelace")}));
        let found = ask(
            "query($id: ID!) { customer(id: $id) { id } }",
            json!({"id": id}),
        );
        assert_eq!(found["customer"]["id"], id.as_str());
    }
    tandem.replicated(&Client::new(), "c5", 1);

    // A document that was sent to one gateway is unknown to the other. That one says so, and gets the document, as
    // clients do.
    let query = "{ __typename # of two gateways\n }";
    let named = json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": tandem_front_door::graphql::hash(query)}}});
    let post = |url: &str, request: &Value| {
        let answer = Client::new().post(url, "application/json", request.to_string());
        answer.json()
    };
    let mut told = named.clone();
    told["query"] = json!(query);
    let typename = |answer: &Value| answer["data"]["__typename"] == "Query";
    assert!(typename(&post(&tandem.gateway_url("/graphql"), &told)));
    let own = format!("http://127.0.0.1:{second_port}/graphql");
    let unknown = post(&own, &named);
    assert_eq!(unknown["errors"][0]["message"], "PersistedQueryNotFound");
    for _ in 0..8 {
        let mut answer = post(&url, &named);
        if !typename(&answer) {
            assert_eq!(answer["errors"][0]["message"], "PersistedQueryNotFound");
            answer = post(&url, &told);
        }
        assert!(typename(&answer), "{answer}");
    }

    // A subscription resumes at the other gateway after its own has ended, and misses and repeats nothing.
    let placed = |customer: &str| {
        let placed = ask(PLACE, json!({"input": order_input(customer)}));
        placed["placeOrder"]["order"]["id"].clone()
    };
    let client = Client::new();
    let updates = client.subscribe(Transport::ServerSentEvents, &own, FEED, json!({}));
    let next = |updates: &super::support::Subscription| {
        poll("an update", || {
            let item = updates.next()["data"]["orderFeed"].clone();
            (!item["order"].is_null()).then_some(item)
        })
    };
    poll("the subscription is taken", || {
        (!updates.next()["data"]["orderFeed"]["cursor"].is_null()).then_some(())
    });
    let first = placed("c1");
    let told = next(&updates);
    assert_eq!(told["order"]["id"], first);
    second.signal(Signal::KILL);
    let missed = placed("c2");
    let after = json!({"after": told["cursor"]});
    let resumed = client.subscribe(Transport::ServerSentEvents, &url, FEED, after);
    assert_eq!(next(&resumed)["order"]["id"], missed);
    let last = placed("c3");
    assert_eq!(next(&resumed)["order"]["id"], last);

    // When one gateway is gone, clients do not notice.
    for number in 0..6 {
        let id = format!("c{number}");
        let found = ask(
            "query($id: ID!) { customer(id: $id) { id } }",
            json!({"id": id}),
        );
        assert_eq!(found["customer"]["id"], id.as_str());
    }
}
