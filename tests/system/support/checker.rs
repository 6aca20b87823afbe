//! Holds the system to what it acknowledged: in the stores, in the topics, in the replica.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers as _,
};
use serde_json::{Value, json};

use super::{Client, poll_for, workload::History};

pub const CUSTOMER_TOPIC: &str = "accounts.customer.change";
pub const ORDER_TOPIC: &str = "orders.order.change";

const CUSTOMERS: &str = "query($id: ID!) { customer(id: $id) {
    revision changes(first: 100) { nodes { revision } } } }";
const REPLICA: &str = "query($id: ID!) { orderingCustomer(id: $id) { replica { revision } } }";
const ORDERS: &str = "query($id: ID!) { order(id: $id) {
    revision status changes(first: 100) { nodes { revision } } } }";

/// How long the system may take to catch up after the trouble has ended.
const CATCH_UP: Duration = Duration::from_secs(120);

/// An event as the topic holds it.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    pub key: String,
    pub revision: i64,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// Everything that a topic holds, in order within each partition.
pub fn read_topic(client: &ClientConfig, topic: &str) -> Vec<LoggedEvent> {
    let mut config = client.clone();
    config
        .set("group.id", "tandem-tests")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    let limit = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(topic), limit).unwrap();
    let partitions = metadata.topics()[0].partitions();
    let mut assignment = TopicPartitionList::new();
    let mut open: HashMap<i32, i64> = HashMap::new();
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), limit)
            .unwrap();
        if high > low {
            open.insert(partition.id(), high);
            assignment
                .add_partition_offset(topic, partition.id(), Offset::Beginning)
                .unwrap();
        }
    }
    let mut events = Vec::new();
    if open.is_empty() {
        return events;
    }
    consumer.assign(&assignment).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !open.is_empty() {
        assert!(
            Instant::now() < deadline,
            "{topic} could not be read to its end: {open:?}"
        );
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let body: Value = serde_json::from_slice(message.payload().unwrap_or(b"null")).unwrap();
        let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
            headers
                .iter()
                .map(|header| {
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                    (header.key.to_owned(), value.into_owned())
                })
                .collect()
        });
        events.push(LoggedEvent {
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            revision: body["revision"].as_i64().unwrap_or_default(),
            headers,
            body,
        });
        if open
            .get(&message.partition())
            .is_some_and(|high| message.offset() + 1 >= *high)
        {
            open.remove(&message.partition());
        }
    }
    events
}

/// For each key its newest revision in a log; fails if a key's revisions, as first seen, are not 1, 2, 3, …
#[track_caller]
pub fn newest_revisions(events: &[LoggedEvent], topic: &str) -> HashMap<String, i64> {
    let mut newest: HashMap<String, i64> = HashMap::new();
    let mut ids: HashMap<(&str, i64), &str> = HashMap::new();
    for event in events {
        let known = newest.entry(event.key.clone()).or_default();
        assert!(
            event.revision <= *known + 1,
            "{topic}: {} shows revision {} after {known}: a gap, or out of order",
            event.key,
            event.revision
        );
        *known = event.revision.max(*known);
        // The same revision twice must be the same event: anything else is a fork.
        let id = event
            .headers
            .get("ce_id")
            .map(String::as_str)
            .unwrap_or_default();
        let first = ids.entry((&event.key, event.revision)).or_insert(id);
        assert_eq!(
            *first, id,
            "{topic}: {} has two events of revision {}",
            event.key, event.revision
        );
    }
    newest
}

/// Where the system under check answers.
pub struct System<'a> {
    pub accounts: &'a str,
    pub orders: &'a str,
    pub kafka: ClientConfig,
}

/// Fails unless everything that was acknowledged is in the stores, the topics and the replica, without a gap or a fork.
#[track_caller]
pub fn check(system: &System<'_>, history: &History) {
    assert!(
        history.acknowledged > 0,
        "nothing was acknowledged: nothing is proved"
    );
    let client = Client::new();
    let ask = |url: &str, query: &str, id: &str, what: &str| -> Value {
        poll_for(CATCH_UP, what, || {
            let response = client.try_graphql(url, query, json!({"id": id})).ok()?;
            response["errors"]
                .is_null()
                .then(|| response["data"].clone())
        })
    };
    let mut customers: HashMap<&str, i64> = HashMap::new();
    for (id, acknowledged) in &history.customers {
        let data = ask(system.accounts, CUSTOMERS, id, "accounts answers");
        let stored = data["customer"]["revision"].as_i64().unwrap_or_default();
        assert!(
            stored >= *acknowledged,
            "LOST: customer {id} was acknowledged at revision {acknowledged}, accounts holds {stored}"
        );
        customers.insert(id, stored);
    }
    let mut orders: HashMap<&str, i64> = HashMap::new();
    for (id, (acknowledged, status)) in &history.orders {
        let data = ask(system.orders, ORDERS, id, "orders answers");
        let stored = data["order"]["revision"].as_i64().unwrap_or_default();
        assert!(
            stored >= *acknowledged,
            "LOST: order {id} was acknowledged at revision {acknowledged}, orders holds {stored}"
        );
        if stored == *acknowledged {
            assert_eq!(data["order"]["status"], json!(status), "order {id}");
        }
        orders.insert(id, stored);
    }
    // What is stored must come to the topic, all of it and nothing else.
    let in_topic = |topic: &str, stored: &HashMap<&str, i64>| {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let newest = newest_revisions(&read_topic(&system.kafka, topic), topic);
            let missing = stored
                .iter()
                .find(|(id, revision)| newest.get(**id).copied().unwrap_or_default() != **revision);
            match missing {
                None => return,
                Some((id, revision)) => assert!(
                    Instant::now() < deadline,
                    "LOST: {id} is stored at revision {revision}, {topic} shows {:?}",
                    newest.get(*id)
                ),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    in_topic(CUSTOMER_TOPIC, &customers);
    in_topic(ORDER_TOPIC, &orders);
    for (id, stored) in &customers {
        poll_for(
            CATCH_UP,
            &format!("the replica holds {id} at revision {stored}"),
            || {
                let response = client
                    .try_graphql(system.orders, REPLICA, json!({"id": id}))
                    .ok()?;
                let held = response["data"]["orderingCustomer"]["replica"]["revision"].as_i64()?;
                (held == *stored).then_some(())
            },
        );
        poll_for(CATCH_UP, &format!("the audit of {id} is complete"), || {
            audit_is_complete(&ask(system.accounts, CUSTOMERS, id, "accounts answers")["customer"])
        });
    }
    for id in orders.keys() {
        poll_for(CATCH_UP, &format!("the audit of {id} is complete"), || {
            audit_is_complete(&ask(system.orders, ORDERS, id, "orders answers")["order"])
        });
    }
}

/// Whether the audit trail shows the revisions 1, 2, 3, … up to the present one (of which it is asked for the first 100).
fn audit_is_complete(found: &Value) -> Option<()> {
    let revision = found["revision"].as_i64()?;
    let shown: Vec<i64> = found["changes"]["nodes"]
        .as_array()?
        .iter()
        .filter_map(|change| change["revision"].as_i64())
        .collect();
    (shown == (1..=revision.min(100)).collect::<Vec<_>>()).then_some(())
}
