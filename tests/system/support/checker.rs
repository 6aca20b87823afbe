//! Checks that the system has kept everything that it acknowledged: in the stores, the topics and the replica.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers as _,
};
use serde_json::{Value, json};

use super::{Client, workload::History};

pub const CUSTOMER_TOPIC: &str = "accounts.customer.change";
pub const ORDER_TOPIC: &str = "orders.order.change";

const CUSTOMERS: &str = "query($after: String) { page: customers(first: 50, after: $after) {
    pageInfo { hasNextPage endCursor }
    nodes { id revision name { lastName } changes(first: 100) { nodes { revision eventId } } } } }";
const ORDERS: &str = "query($after: String) { page: orders(first: 50, after: $after) {
    pageInfo { hasNextPage endCursor }
    nodes { id revision status customer { id } changes(first: 100) { nodes { revision eventId } } } } }";

/// The header of a message that a test writes directly to a topic. It is not an event of the system.
pub const FOREIGN: &str = "test-foreign";

/// How many customers are read from the replica in one request.
const REPLICAS: usize = 20;

/// How long the system may take to catch up after the failures have ended.
const CATCH_UP: Duration = Duration::from_secs(120);

/// An event as the topic holds it.
#[derive(Clone, Debug)]
pub struct LoggedEvent {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub revision: i64,
    pub headers: BTreeMap<String, String>,
    /// Null if it is not JSON, as in a dead letter.
    pub body: Value,
    /// The raw bytes of the body.
    pub payload: Vec<u8>,
}

impl LoggedEvent {
    /// Whether a test wrote it directly to the topic.
    pub fn is_foreign(&self) -> bool {
        self.headers.contains_key(FOREIGN)
    }
}

/// Like [`read_topic`], but retries until the topic can be read.
#[track_caller]
pub fn whole_topic(client: &ClientConfig, topic: &str) -> Vec<LoggedEvent> {
    super::poll(&format!("{topic} is read"), || {
        read_topic(client, topic).ok()
    })
}

/// Everything in a topic, in order within each partition.
///
/// # Errors
/// When Kafka does not answer.
pub fn read_topic(client: &ClientConfig, topic: &str) -> Result<Vec<LoggedEvent>, String> {
    let away = |error: KafkaError| format!("{topic} cannot be read: {error}");
    let mut config = client.clone();
    config
        .set("group.id", "tandem-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().map_err(away)?;
    let limit = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(topic), limit).map_err(away)?;
    let partitions = metadata.topics()[0].partitions();
    let mut assignment = TopicPartitionList::new();
    let mut open: HashMap<i32, i64> = HashMap::new();
    for partition in partitions {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), limit)
            .map_err(away)?;
        if high > low {
            open.insert(partition.id(), high);
            assignment
                .add_partition_offset(topic, partition.id(), Offset::Beginning)
                .unwrap();
        }
    }
    let mut events = Vec::new();
    if open.is_empty() {
        return Ok(events);
    }
    consumer.assign(&assignment).map_err(away)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while !open.is_empty() {
        if Instant::now() > deadline {
            return Err(format!("{topic} could not be read to its end: {open:?}"));
        }
        let message = match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => message,
            // Offsets may have gaps, so the end of a partition is known by this event.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
                continue;
            }
            _ => continue,
        };
        let payload = message.payload().unwrap_or_default().to_vec();
        let body: Value = serde_json::from_slice(&payload).unwrap_or_default();
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
            partition: message.partition(),
            offset: message.offset(),
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            revision: body["revision"].as_i64().unwrap_or_default(),
            headers,
            body,
            payload,
        });
        if open
            .get(&message.partition())
            .is_some_and(|high| message.offset() + 1 >= *high)
        {
            open.remove(&message.partition());
        }
    }
    Ok(events)
}

/// The content of a topic.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The newest revision of each key.
    pub newest: HashMap<String, i64>,
    /// The id of the event for each key and revision.
    pub ids: HashMap<(String, i64), String>,
    /// Events that are repeated.
    pub duplicates: u64,
}

/// The system's own events in a log.
///
/// # Errors
/// When the revisions of a key, as first seen, are not 1, 2, 3, …, or one revision has two events. After partitions
/// were added, there is no order between a key's events in its old partition and in its new one.
pub fn shown(events: &[LoggedEvent], topic: &str) -> Result<Shown, String> {
    let mut shown = Shown::default();
    let mut newest_in_partition: HashMap<(&str, i32), BTreeSet<i64>> = HashMap::new();
    for event in events.iter().filter(|event| !event.is_foreign()) {
        let (key, revision) = (&event.key, event.revision);
        let in_partition = newest_in_partition
            .entry((key, event.partition))
            .or_default();
        if let Some(known) = in_partition.last().filter(|known| revision < **known)
            && !in_partition.contains(&revision)
        {
            return Err(format!(
                "LOST: {topic}: {key} shows revision {revision} after {known}: out of order"
            ));
        }
        in_partition.insert(revision);
        let newest = shown.newest.entry(key.clone()).or_default();
        *newest = revision.max(*newest);
        // The same revision twice must be the same event. Anything else is a fork.
        let id = event.headers.get("ce_id").cloned().unwrap_or_default();
        match shown.ids.entry((key.clone(), revision)) {
            Entry::Vacant(vacant) => drop(vacant.insert(id)),
            Entry::Occupied(first) if *first.get() == id => shown.duplicates += 1,
            Entry::Occupied(first) => {
                return Err(format!(
                    "FORK: {topic}: {key} has two events of revision {revision}: {} and {id}",
                    first.get()
                ));
            }
        }
    }
    for (key, newest) in &shown.newest {
        let is_there = |revision: &i64| shown.ids.contains_key(&(key.clone(), *revision));
        if let Some(lost) = (1..*newest).find(|revision| !is_there(revision)) {
            return Err(format!(
                "LOST: {topic}: {key} shows revision {newest} and not {lost}: a gap"
            ));
        }
    }
    Ok(shown)
}

/// The addresses of the system under test.
pub struct System<'a> {
    pub accounts: &'a str,
    pub orders: &'a str,
    pub kafka: ClientConfig,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub customers: usize,
    pub orders: usize,
    /// Revisions that are in a store, in its topic and in the audit trail.
    pub revisions: usize,
    /// Events that a topic holds more than once. That is allowed and has no effect.
    pub duplicates: u64,
}

/// Fails unless [`examine`] finds everything correct.
#[track_caller]
pub fn check(system: &System<'_>, history: &History) -> Report {
    let report = examine(system, history, CATCH_UP).unwrap_or_else(|fault| panic!("{fault}"));
    println!("checked: {report:?}");
    report
}

/// Checks what the system promises. Everything acknowledged is in the stores, the topics and the replica, without a gap
/// or a fork. Everything else in a store is in its topic and its audit trail too, and the reverse. Nothing exists that
/// nobody asked for.
///
/// # Errors
/// What is wrong, and does not become right within the limit.
pub fn examine(system: &System<'_>, history: &History, limit: Duration) -> Result<Report, String> {
    if history.acknowledged == 0 {
        return Err("nothing was acknowledged: nothing is proved".to_owned());
    }
    let examination = Examination {
        client: Client::new(),
        system,
        limit,
    };
    // An acknowledged change cannot appear later: it is there or it is lost.
    let customers = examination.patiently(|| examination.list(system.accounts, CUSTOMERS))?;
    customers_are_kept(history, &customers)?;
    let orders = examination.patiently(|| examination.list(system.orders, ORDERS))?;
    orders_are_kept(history, &orders)?;
    let mut report = Report {
        customers: customers.len(),
        orders: orders.len(),
        ..Report::default()
    };
    for (url, query, topic, stored) in [
        (system.accounts, CUSTOMERS, CUSTOMER_TOPIC, &customers),
        (system.orders, ORDERS, ORDER_TOPIC, &orders),
    ] {
        let shown = examination.patiently(|| examination.topic_agrees(topic, stored))?;
        examination.patiently(|| {
            let listed = examination.list(url, query)?;
            listed
                .iter()
                .try_for_each(|(id, item)| audit_agrees(id, item, &shown))
        })?;
        report.revisions += shown.ids.len();
        report.duplicates += shown.duplicates;
    }
    let all: Vec<(&str, i64)> = customers
        .iter()
        .map(|(id, item)| (id.as_str(), item.revision))
        .collect();
    for some in all.chunks(REPLICAS) {
        examination.patiently(|| examination.replica_agrees(some))?;
    }
    Ok(report)
}

/// A customer or an order in its store.
struct Item {
    revision: i64,
    node: Value,
}

struct Examination<'a> {
    client: Client,
    system: &'a System<'a>,
    limit: Duration,
}

impl Examination<'_> {
    /// Polls until the check succeeds. After the limit, returns its last error.
    fn patiently<T>(&self, look: impl Fn() -> Result<T, String>) -> Result<T, String> {
        let deadline = Instant::now() + self.limit;
        loop {
            match look() {
                Ok(found) => return Ok(found),
                Err(problem) if Instant::now() > deadline => return Err(problem),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn ask(&self, url: &str, query: &str, variables: Value) -> Result<Value, String> {
        let response = self.client.try_graphql(url, query, variables)?;
        if response["errors"].is_null() {
            Ok(response["data"].clone())
        } else {
            Err(format!("{url} answers {}", response["errors"]))
        }
    }

    /// Everything in a store, page by page.
    fn list(&self, url: &str, query: &str) -> Result<BTreeMap<String, Item>, String> {
        let mut found = BTreeMap::new();
        let mut after = Value::Null;
        loop {
            let page = self.ask(url, query, json!({"after": after}))?["page"].take();
            for node in page["nodes"].as_array().into_iter().flatten() {
                let id = node["id"].as_str().unwrap_or_default().to_owned();
                let item = Item {
                    revision: node["revision"].as_i64().unwrap_or_default(),
                    node: node.clone(),
                };
                if found.insert(id.clone(), item).is_some() {
                    return Err(format!("{url} lists {id} twice"));
                }
            }
            if page["pageInfo"]["hasNextPage"] != true {
                return Ok(found);
            }
            after = page["pageInfo"]["endCursor"].clone();
        }
    }

    /// Everything stored must reach the topic, and nothing else.
    fn topic_agrees(&self, topic: &str, stored: &BTreeMap<String, Item>) -> Result<Shown, String> {
        let shown = shown(&read_topic(&self.system.kafka, topic)?, topic)?;
        for (id, item) in stored {
            let newest = shown.newest.get(id).copied().unwrap_or_default();
            if newest != item.revision {
                return Err(format!(
                    "LOST: {id} is stored at revision {}, {topic} shows {newest}",
                    item.revision
                ));
            }
        }
        match shown.newest.keys().find(|id| !stored.contains_key(*id)) {
            Some(id) => Err(format!("LOST: {topic} shows {id}, which no store has")),
            None => Ok(shown),
        }
    }

    fn replica_agrees(&self, customers: &[(&str, i64)]) -> Result<(), String> {
        let parts: String = customers
            .iter()
            .enumerate()
            .map(|(number, (id, _))| {
                format!(
                    " c{number}: orderingCustomer(id: {}) {{ replica {{ revision }} }}",
                    json!(id)
                )
            })
            .collect();
        let data = self.ask(self.system.orders, &format!("{{{parts} }}"), json!({}))?;
        for (number, (id, revision)) in customers.iter().enumerate() {
            let held = data[format!("c{number}")]["replica"]["revision"].as_i64();
            if held != Some(*revision) {
                return Err(format!(
                    "LOST: {id} is stored at revision {revision}, the replica holds {held:?}"
                ));
            }
        }
        Ok(())
    }
}

fn customers_are_kept(history: &History, stored: &BTreeMap<String, Item>) -> Result<(), String> {
    for (id, acknowledged) in &history.customers {
        let found = stored.get(id).map(|item| item.revision).unwrap_or_default();
        if found < *acknowledged {
            return Err(format!(
                "LOST: customer {id} was acknowledged at revision {acknowledged}, accounts holds {found}"
            ));
        }
    }
    for (id, item) in stored {
        if let Some((revision, name)) = history.names.get(id)
            && *revision == item.revision
            && item.node["name"]["lastName"] != json!(name)
        {
            return Err(format!(
                "customer {id} was acknowledged with the name {name} at revision {revision}, accounts holds {}",
                item.node["name"]["lastName"]
            ));
        }
        let sent = history.sent_customers.get(id).copied();
        if sent.is_some_and(|sent| item.revision > sent) {
            return Err(format!(
                "customer {id} has revision {} of {sent:?} commands that were sent",
                item.revision
            ));
        }
    }
    Ok(())
}

fn orders_are_kept(history: &History, stored: &BTreeMap<String, Item>) -> Result<(), String> {
    for (id, (acknowledged, status)) in &history.orders {
        let item = stored.get(id);
        let found = item.map(|item| item.revision).unwrap_or_default();
        if found < *acknowledged {
            return Err(format!(
                "LOST: order {id} was acknowledged at revision {acknowledged}, orders holds {found}"
            ));
        }
        let sent = history.sent_orders.get(id).copied();
        if sent.is_some_and(|sent| found > sent) {
            return Err(format!(
                "order {id} has revision {found} of {sent:?} commands that were sent"
            ));
        }
        let held = item.map(|item| &item.node["status"]);
        if found == *acknowledged && held != Some(&json!(status)) {
            return Err(format!(
                "order {id} was acknowledged as {status}, orders holds {held:?}"
            ));
        }
    }
    let mut placed: HashMap<&str, i64> = HashMap::new();
    for item in stored.values() {
        let customer = item.node["customer"]["id"].as_str().unwrap_or_default();
        *placed.entry(customer).or_default() += 1;
    }
    for (customer, placed) in placed {
        let sent = history.sent_placings.get(customer).copied();
        if sent.is_some_and(|sent| placed > sent) {
            return Err(format!(
                "customer {customer} has {placed} orders of {sent:?} that were sent"
            ));
        }
    }
    Ok(())
}

/// Whether the audit trail shows the revisions 1, 2, 3, … up to the current one, each with the event that the topic
/// shows. Only the first 100 are queried.
fn audit_agrees(id: &str, item: &Item, shown: &Shown) -> Result<(), String> {
    let trail: Vec<(i64, &str)> = item.node["changes"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| {
            let revision = change["revision"].as_i64().unwrap_or_default();
            (revision, change["eventId"].as_str().unwrap_or_default())
        })
        .collect();
    let revisions: Vec<i64> = trail.iter().map(|(revision, _)| *revision).collect();
    if revisions != (1..=item.revision.min(100)).collect::<Vec<_>>() {
        return Err(format!(
            "LOST: {id} is stored at revision {}, its audit trail shows {revisions:?}",
            item.revision
        ));
    }
    for (revision, event) in trail {
        let published = shown.ids.get(&(id.to_owned(), revision));
        if published.map(String::as_str) != Some(event) {
            return Err(format!(
                "FORK: revision {revision} of {id} is {event} in the audit trail, {published:?} in the topic"
            ));
        }
    }
    Ok(())
}
