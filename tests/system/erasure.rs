//! Erasing a customer: afterwards nothing of the person is found, byte by byte, in any file or message, also after a rebuild.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};

use super::support::{
    Client, Tandem,
    graph::{CREATE, PLACE, UPDATE, order_input},
    poll, tandem_command,
};

const LIMIT: Duration = Duration::from_secs(10);
const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) {
    name { firstName lastName } contact { primaryPhone secondaryPhone email }
    addresses { description address1 address2 city } creditCards { nameOnCard description } } }";
const ORDERING: &str =
    "query($id: ID!) { orderingCustomer(id: $id) { name { lastName } addresses { address1 } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) {
    status total cancellationReason shipTo { address1 } customer { id } } }";
const CANCEL: &str = "mutation($id: ID!, $reason: String) {
    cancelOrder(id: $id, reason: $reason) { order { status cancellationReason } } }";
const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";

/// Texts that are found nowhere by chance.
const SECRETS: [&str; 11] = [
    "Qzhavelmor",
    "Wexborundy",
    "+99 735 180 264 917",
    "+99 735 180 264 918",
    "qz.havel-4417@wexb.example",
    "Pliskorvane 71",
    "Backdoor Trunzel",
    "Yorvenstadtl",
    "Chezmoi-Krundo",
    "Qz H Wexborundy-Card",
    "Unwanted because Zalmondrik moved",
];
const REASON: usize = 10;

fn person(id: &str) -> Value {
    json!({
        "id": id,
        "name": {"firstName": SECRETS[0], "lastName": SECRETS[1]},
        "contact": {"primaryPhone": SECRETS[2], "secondaryPhone": SECRETS[3], "email": SECRETS[4]},
        "addresses": [{"type": "SHIPPING", "description": SECRETS[8], "address1": SECRETS[5], "address2": SECRETS[6],
            "city": SECRETS[7], "state": "NY", "postalCode": "1"}],
        "creditCards": [{"type": "PRIMARY", "number": "4111111111111111", "expiration": "12/29", "nameOnCard": SECRETS[9]}],
        "idempotencyKey": "first",
    })
}

/// Each secret as it is, and as base64 at each of the three places within a group of bytes.
fn needles() -> Vec<(String, Vec<u8>)> {
    let mut needles = Vec::new();
    for secret in SECRETS {
        needles.push((secret.to_owned(), secret.as_bytes().to_vec()));
        for shift in 0..3 {
            let shifted = [&vec![b'x'; shift], secret.as_bytes()].concat();
            let text = STANDARD.encode(&shifted);
            // What the neighbours have a part in is left out.
            let (from, to) = (shift * 4 / 3 + usize::from(shift > 0), text.len() - 4);
            needles.push((
                format!("{secret} in base64"),
                text.as_bytes()[from..to].to_vec(),
            ));
        }
    }
    needles
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes
        .windows(needle.len())
        .any(|window| window[0] == needle[0] && window == needle)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Every message of every topic: key, headers and body together.
fn messages(bootstrap: &str) -> Vec<(String, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "erasure-test")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(None, LIMIT).unwrap();
    let mut left = 0;
    let mut all = TopicPartitionList::new();
    for topic in metadata.topics() {
        for partition in topic.partitions() {
            let (low, high) = consumer
                .fetch_watermarks(topic.name(), partition.id(), LIMIT)
                .unwrap();
            left += high - low;
            all.add_partition_offset(topic.name(), partition.id(), Offset::Offset(low))
                .unwrap();
        }
    }
    consumer.assign(&all).unwrap();
    let mut found = Vec::new();
    while left > 0 {
        let message = consumer.poll(LIMIT).expect("a message").unwrap();
        let bytes = [message.key(), message.payload()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .concat();
        found.push((message.topic().to_owned(), bytes));
        left -= 1;
    }
    found
}

/// Where something of the person is found.
fn traces(tandem: &Tandem) -> Vec<String> {
    let needles = needles();
    let mut paths = Vec::new();
    files(tandem.data_dir(), &mut paths);
    assert!(paths.len() >= 4, "{paths:?}");
    let mut found = Vec::new();
    let mut look = |place: &str, bytes: &[u8]| {
        for (what, needle) in &needles {
            if holds(bytes, needle) {
                found.push(format!("{what} in {place}"));
            }
        }
    };
    for path in paths {
        // A file may go while one looks, as a write-ahead log does.
        if let Ok(bytes) = fs::read(&path) {
            look(&path.display().to_string(), &bytes);
        }
    }
    let messages = messages(&tandem.bootstrap_servers());
    assert!(
        messages
            .iter()
            .any(|(topic, _)| topic == "accounts.customer.key")
    );
    for (topic, bytes) in messages {
        look(&topic, &bytes);
    }
    found
}

fn rebuild(tandem: &Tandem, service: &str) {
    let done = tandem_command()
        .args(["rebuild", service])
        .arg("--data-dir")
        .arg(tandem.data_dir())
        .args(["--accounts-url", &tandem.accounts_url("")])
        .args(["--orders-url", &tandem.orders_url("")])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn nothing_of_an_erased_customer_is_found_in_any_file_or_message() {
    let tandem = Tandem::start();
    let client = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    let data = |query: &str, variables: Value| client.data(&gateway, query, variables);
    let code = |query: &str, variables: Value| {
        client.graphql(&gateway, query, variables)["errors"][0]["extensions"]["code"].clone()
    };

    tandem.customer(&client, "other");
    let others = tandem.order(&client, "other");
    data(CREATE, json!({"input": person("gone")}));
    tandem.replicated(&client, "gone", 1);
    let mut input = order_input("gone");
    input["idempotencyKey"] = json!("order");
    let placed = data(PLACE, json!({"input": input}));
    let id = placed["placeOrder"]["order"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    data(CANCEL, json!({"id": id, "reason": SECRETS[REASON]}));
    let contact = json!({"contact": {"primaryPhone": SECRETS[3], "secondaryPhone": SECRETS[2], "email": SECRETS[4]}});
    data(UPDATE, json!({"id": "gone", "input": contact}));
    tandem.replicated(&client, "gone", 2);

    // Before: all of it can be read, so that looking for it means something.
    let before = [
        data(CUSTOMER, json!({"id": "gone"})).to_string(),
        data(ORDERING, json!({"id": "gone"})).to_string(),
        data(ORDER, json!({"id": id})).to_string(),
    ]
    .concat();
    for secret in SECRETS {
        assert!(before.contains(secret), "{secret} is not in {before}");
    }
    let order_before = data(ORDER, json!({"id": id}));
    assert_eq!(order_before["order"]["shipTo"]["address1"], SECRETS[5]);

    // And whoever looks would find it, also where it stands within base64.
    let probe = tandem.data_dir().join("probe");
    fs::write(&probe, STANDARD.encode(format!("..{}..", SECRETS[5]))).unwrap();
    assert_eq!(traces(&tandem).len(), 1);
    fs::remove_file(&probe).unwrap();

    let erased = data(ERASE, json!({"id": "gone"}));
    assert_eq!(erased["eraseCustomer"]["id"], "gone");
    assert_eq!(data(ERASE, json!({"id": "gone"})), erased);
    assert_eq!(code(ERASE, json!({"id": "nobody"})), "NOT_FOUND");

    let is_gone = || {
        let order = data(ORDER, json!({"id": id}));
        assert_eq!(order["order"]["status"], "CANCELLED");
        assert_eq!(order["order"]["total"], "25.00");
        data(ORDERING, json!({"id": "gone"}))["orderingCustomer"].is_null()
            && order["order"]["shipTo"].is_null()
            && order["order"]["cancellationReason"].is_null()
    };
    poll("orders without the person", || is_gone().then_some(()));
    let check = || {
        assert!(data(CUSTOMER, json!({"id": "gone"}))["customer"].is_null());
        assert!(is_gone());
        assert_eq!(
            code(CREATE, json!({"input": person("gone")})),
            "ALREADY_EXISTS"
        );
        assert_eq!(
            code(UPDATE, json!({"id": "gone", "input": contact})),
            "NOT_FOUND"
        );
        assert_eq!(
            code(PLACE, json!({"input": order_input("gone")})),
            "CUSTOMER_UNKNOWN"
        );
        // Nobody else is touched.
        let other = data(CUSTOMER, json!({"id": "other"}));
        assert_eq!(other["customer"]["contact"]["email"], "ada@example.org");
        let ordering = data(ORDERING, json!({"id": "other"}));
        assert_eq!(
            ordering["orderingCustomer"]["addresses"][1]["address1"],
            "1 Ockham Park"
        );
        let order = data(ORDER, json!({"id": others}));
        assert_eq!(order["order"]["shipTo"]["address1"], "1 Ockham Park");
        let found = traces(&tandem);
        assert!(found.is_empty(), "{found:#?}");
    };
    check();
    rebuild(&tandem, "accounts");
    rebuild(&tandem, "orders");
    check();
}
