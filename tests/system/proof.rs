//! Nothing is concluded from absence: a data key is missing, or the topic of keys was lost.

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem,
    graph::{CREATE, PLACE, UPDATE, customer_input, order_input},
    ground::{CUSTOMERS, Ground, KEYS, Log, ORDERS, Raw},
    poll,
};

const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";
const NAMES: &str = "query($id: ID!) { customer(id: $id) { revision name { lastName } } }";
const REPLICA: &str =
    "query($id: ID!) { orderingCustomer(id: $id) { name { lastName } replica { revision } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) { status shipTo { address1 } } }";

/// The last name in each service. Null where there is none.
fn names(tandem: &Tandem, client: &Client, id: &str) -> (Value, Value) {
    let ask = |url: String, query: &str, field: &str| {
        let answer = client.try_graphql(&url, query, json!({"id": id}));
        answer.map_or(Value::Null, |answer| {
            answer["data"][field]["name"]["lastName"].clone()
        })
    };
    (
        ask(tandem.accounts_url("/graphql"), NAMES, "customer"),
        ask(tandem.orders_url("/graphql"), REPLICA, "orderingCustomer"),
    )
}

#[track_caller]
fn is_known(tandem: &Tandem, client: &Client, id: &str, last_name: &str) {
    poll(&format!("{id} is known to both services"), || {
        let known = names(tandem, client, id);
        (known == (json!(last_name), json!(last_name))).then_some(())
    });
}

/// The subjects whose keys are missing, and the reader that waits for each.
fn waiting(tandem: &Tandem) -> Vec<(String, String)> {
    let told = tandem.operated(&["keys", "waiting", "--json"]);
    let all: Vec<Value> = serde_json::from_str(&told).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<(String, String)> = all
        .iter()
        .map(|waiting| (text(&waiting["subject"]), text(&waiting["reader"])))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(subject, reader)| ((*subject).to_owned(), (*reader).to_owned()))
        .collect()
}

/// The metrics of a service with this prefix.
fn metric(client: &Client, url: &str, name: &str) -> Vec<String> {
    let metrics = client.get(&format!("{url}/actuator/prometheus")).body;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(str::to_owned).collect()
}

/// A system with the customers a and b, an erased customer gone, and an order of a. Everything is published.
fn original(ground: &Ground) -> (Vec<Raw>, Vec<Raw>, Vec<Raw>, String) {
    let tandem = ground.start();
    let client = Client::new();
    for id in ["a", "b", "gone"] {
        tandem.customer(&client, id);
    }
    let gateway = tandem.gateway_url("/graphql");
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    client.data(&gateway, UPDATE, json!({"id": "a", "input": name}));
    tandem.replicated(&client, "a", 2);
    let order = tandem.order(&client, "a");
    client.data(&gateway, ERASE, json!({"id": "gone"}));
    tandem.published(&client);
    let log = Log::of(&tandem);
    (log.read(CUSTOMERS), log.read(KEYS), log.read(ORDERS), order)
}

#[test]
fn late_data_keys_are_waited_for_whatever_the_clocks_say() {
    late_keys(
        &Ground::embedded(),
        Ground::embedded,
        "2020-01-01T00:00:00.000Z",
    );
}

#[test]
fn late_data_keys_are_waited_for_on_real_servers_whatever_the_clocks_say() {
    require!(mongod, kafka);
    let ground = Ground::on_real_servers();
    late_keys(&ground, Ground::on_real_servers, "2020-01-01T00:00:00.000Z");
}

#[test]
fn late_data_keys_of_events_from_the_future_are_waited_for() {
    late_keys(
        &Ground::embedded(),
        Ground::embedded,
        "2199-01-01T00:00:00.000Z",
    );
}

fn late_keys(first: &Ground, second: impl Fn() -> Ground, time: &str) {
    let (customers, keys, orders, order) = original(first);
    let aged = |messages: &[Raw]| -> Vec<Raw> {
        messages.iter().cloned().map(|raw| raw.at(time)).collect()
    };
    // The change topics exist, but the topic of keys does not yet.
    let second = second().with_key_of(first);
    {
        let log = second.log();
        log.put(CUSTOMERS, &aged(&customers));
        log.put(ORDERS, &aged(&orders));
        log.make(KEYS);
    }
    let tandem = second.start();
    let client = Client::new();
    let wanted = pairs(&[
        ("a", "customer.accounts"),
        ("a", "order.orders"),
        ("a", "orders-replica"),
        ("b", "customer.accounts"),
        ("b", "orders-replica"),
        ("gone", "orders-replica"),
    ]);
    poll("both services say whose keys they wait for", || {
        // The log holds the erasure of gone. A reader that has read it waits for no key.
        let waiting = waiting(&tandem);
        let mut least = wanted.clone();
        least.retain(|(subject, _)| subject != "gone");
        (waiting == least || waiting == wanted).then_some(())
    });
    for (service, url) in [
        ("accounts", tandem.accounts_url("")),
        ("orders", tandem.orders_url("")),
    ] {
        poll("health says so", || {
            let health = client.get(&format!("{url}/actuator/health")).json();
            let told = &health["components"]["dataKeys"];
            // Only operators may see whose keys they are.
            assert!(told["details"]["of"].is_null(), "{told}");
            (told["status"] == "DEGRADED").then_some(())
        });
        poll("operators are told whose", || {
            let path = format!("/operations/{service}/admin/health");
            let health = client.get(&tandem.gateway_url(&path)).json();
            let told = &health["components"]["dataKeys"];
            (told["status"] == "DEGRADED" && told["details"]["of"].as_str()?.contains("a, b"))
                .then_some(())
        });
        poll(
            "the metric counts those of whom the log does not tell more",
            || {
                let told = metric(&client, &url, "data_keys_waiting{");
                told.iter().any(|line| line.ends_with(" 2")).then_some(())
            },
        );
    }
    // No customer counts as erased, none is created twice, and nothing is published because of the missing keys.
    assert_eq!(names(&tandem, &client, "a"), (Value::Null, Value::Null));
    let again = client.graphql(
        &tandem.accounts_url("/graphql"),
        CREATE,
        json!({"input": customer_input("a", "Twice")}),
    );
    let said = again["errors"][0]["message"].as_str().unwrap();
    assert!(said.contains("waits for its data key"), "{again:#}");
    let log = Log::of(&tandem);
    let told: Vec<Raw> = log.read(KEYS);
    assert!(
        told.iter().all(|raw| raw.key == "gone" || raw.is_claim()),
        "{told:?}"
    );
    // Other customers are served meanwhile.
    tandem.customer(&client, "new");
    for service in ["accounts", "orders"] {
        let told = tandem.operated(&["rebuild", service]);
        assert!(told.contains(" 0 removed, 0 set back"), "{told}");
    }
    assert!(waiting(&tandem).len() >= 5);

    log.write(KEYS, &keys);
    is_known(&tandem, &client, "a", "King");
    is_known(&tandem, &client, "b", "Lovelace");
    poll("the order has its address", || {
        let found = client.data(&tandem.orders_url("/graphql"), ORDER, json!({"id": order}));
        (found["order"]["shipTo"]["address1"] == "1 Ockham Park").then_some(())
    });
    assert_eq!(names(&tandem, &client, "gone"), (Value::Null, Value::Null));
    poll("nobody waits any more", || {
        waiting(&tandem).is_empty().then_some(())
    });
    let tombstones: Vec<String> = Log::of(&tandem)
        .read(KEYS)
        .into_iter()
        .filter(|raw| raw.payload.is_none())
        .map(|raw| raw.key)
        .collect();
    assert!(tombstones.iter().all(|key| key == "gone"), "{tombstones:?}");
    let gateway = tandem.gateway_url("/graphql");
    client.data(&gateway, PLACE, json!({"input": order_input("b")}));
    drop(tandem);
    // The claims of the original stores came with the keys. Those stores are not in use.
    let tandem = second.start();
    is_known(&tandem, &client, "a", "King");
}

#[test]
fn one_missing_key_holds_back_its_own_customer_alone() {
    one_missing(&Ground::embedded());
}

#[test]
fn one_missing_key_holds_back_its_own_customer_alone_on_real_servers() {
    require!(mongod, kafka);
    one_missing(&Ground::on_real_servers());
}

fn one_missing(ground: &Ground) {
    const COUNT: usize = 30;
    let client = Client::new();
    {
        let tandem = ground.start();
        for number in 0..COUNT {
            let input = customer_input(&format!("c{number}"), "Lovelace");
            client.data(
                &tandem.gateway_url("/graphql"),
                CREATE,
                json!({"input": input}),
            );
        }
        for number in 0..COUNT {
            tandem.replicated(&client, &format!("c{number}"), 1);
        }
        tandem.published(&client);
    }
    let lost = {
        let keys = ground.log().read(KEYS).into_iter();
        let (lost, kept): (Vec<Raw>, Vec<Raw>) = keys.partition(|raw| raw.key == "c7");
        ground.put_keys(Some(&kept));
        lost
    };
    // Both stores are new, so that no store remembers the key.
    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    let tandem = ground.start();
    for number in (0..COUNT).filter(|number| *number != 7) {
        is_known(&tandem, &client, &format!("c{number}"), "Lovelace");
    }
    let wanted = pairs(&[("c7", "customer.accounts"), ("c7", "orders-replica")]);
    poll("the one that is missing is named", || {
        (waiting(&tandem) == wanted).then_some(())
    });
    let ready = client.get(&tandem.orders_url("/actuator/health/readiness"));
    assert_eq!(ready.status, 200, "{}", ready.body);
    Log::of(&tandem).write(KEYS, &lost);
    is_known(&tandem, &client, "c7", "Lovelace");
}

#[test]
fn a_topic_of_keys_that_was_lost_is_made_again_from_the_store() {
    lost_keys(&Ground::embedded());
}

#[test]
fn a_topic_of_keys_that_was_lost_is_made_again_from_the_store_on_real_servers() {
    require!(mongod, kafka);
    lost_keys(&Ground::on_real_servers());
}

fn lost_keys(ground: &Ground) {
    let (_, keys, _, order) = original(ground);
    let client = Client::new();
    ground.put_keys(None);
    let tandem = ground.start();
    let healed = |tandem: &Tandem| {
        poll("the topic of keys is whole again", || {
            let told = Log::of(tandem).read(KEYS);
            let key = |id: &str| told.iter().find(|raw| raw.key == id)?.payload.clone();
            let first = |id: &str| keys.iter().find(|raw| raw.key == id)?.payload.clone();
            let alive = ["a", "b"]
                .iter()
                .all(|id| key(id) == first(id) && key(id).is_some());
            let erased = told
                .iter()
                .any(|raw| raw.key == "gone" && raw.payload.is_none());
            (alive && erased).then_some(())
        });
    };
    healed(&tandem);
    for service in ["accounts", "orders"] {
        let told = tandem.operated(&["rebuild", service]);
        assert!(told.contains(" 0 removed, 0 set back"), "{told}");
        assert!(!told.contains("wait for"), "{told}");
    }
    is_known(&tandem, &client, "a", "King");
    drop(tandem);
    // A new orders works from what was republished.
    ground.lose_store("orders");
    let tandem = ground.start();
    is_known(&tandem, &client, "a", "King");
    is_known(&tandem, &client, "b", "Lovelace");
    let found = client.data(&tandem.orders_url("/graphql"), ORDER, json!({"id": order}));
    assert_eq!(found["order"]["shipTo"]["address1"], "1 Ockham Park");
    assert!(waiting(&tandem).is_empty());
    // A republish on demand finds nothing to do.
    let told = tandem.operated(&["keys", "publish"]);
    assert_eq!(told.trim(), "0 published");
}
