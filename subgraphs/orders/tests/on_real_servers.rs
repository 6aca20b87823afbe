//! The service on a real MongoDB and a real Kafka, and the contract of its replica there.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Parser;
use futures::{SinkExt, StreamExt};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};
use tandem_assembly::service::ServiceError;
use tandem_backends::{Kafka, KafkaOptions, Mongo, eventually, free_port, require};
use tandem_event_path::{data_keys::DataKey, sealing::Sealer};
use tandem_orders::{
    replica::{contract, mongo::MongoReplica},
    service::{self, Settings},
};
use tandem_runtime::shutdown::Shutdown;
use tandem_store_mongodb::MongoStore;
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const SEALING_KEY: [u8; 32] = [7; 32];
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

#[tokio::test]
async fn the_replica_in_mongodb_keeps_the_contract() {
    require!(mongod);
    let server = Mongo::start(1).await.unwrap();
    let store = MongoStore::connect(&server.uri(), "contract")
        .await
        .unwrap();
    contract::run(Arc::new(MongoReplica::new(store.clone()))).await;
}

/// A GraphQL client of one service.
struct Client {
    http: reqwest::Client,
    port: u16,
}

impl Client {
    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn status(&self, path: &str) -> Option<u16> {
        let answer = self.http.get(self.at(path)).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    async fn ask(&self, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables});
        let answer = self.http.post(self.at("/graphql")).json(&body).send().await;
        let answer: Value = answer.unwrap().json().await.unwrap();
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer["data"].clone()
    }

    async fn subscribe(&self, query: &str) -> Updates {
        let url = format!("ws://127.0.0.1:{}/graphql/ws", self.port);
        let mut request = url.into_client_request().unwrap();
        let protocol = "graphql-transport-ws".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (mut socket, _) = connect_async(request).await.unwrap();
        let mut send = async |message: Value| {
            socket
                .send(Message::text(message.to_string()))
                .await
                .unwrap();
        };
        send(json!({"type": "connection_init"})).await;
        send(json!({"type": "subscribe", "id": "1", "payload": {"query": query}})).await;
        Updates(socket)
    }
}

struct Updates(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Updates {
    /// The next update. The time limit includes pings that arrive in between.
    async fn next(&mut self) -> Value {
        timeout(LIMIT, self.next_update()).await.unwrap()
    }

    async fn next_update(&mut self) -> Value {
        loop {
            let Message::Text(text) = self.0.next().await.unwrap().unwrap() else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["type"] == "next" {
                assert_eq!(message["payload"].get("errors"), None, "{message}");
                return message["payload"]["data"].clone();
            }
        }
    }
}

fn producer(kafka: &Kafka) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("acks", "all")
        .create()
        .unwrap()
}

/// Publishes a change of the customer in the body.
async fn publish_change(kafka: &Kafka, body: Value) {
    let id = uuid::Uuid::now_v7().to_string();
    let subject = body["id"].as_str().unwrap();
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", id.as_str()),
        ("ce_source", "/accounts"),
        ("ce_type", "CustomerChangeEvent"),
        ("ce_subject", subject),
        ("ce_time", body["changedAt"].as_str().unwrap()),
        (
            "ce_dataschema",
            "urn:tandem:schema:customer-change-event:v2",
        ),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    });
    let text = body.to_string();
    let record = FutureRecord::to("accounts.customer.change")
        .key(subject)
        .payload(&text)
        .headers(headers);
    producer(kafka).send(record, LIMIT).await.unwrap();
}

/// The personal data of a customer.
fn person(first_name: &str) -> Value {
    json!({
        "name": {"firstName": first_name, "lastName": "Last"},
        "contact": {"primaryPhone": "555-666-7777", "email": "[email protected]"},
        "addresses": [{"type": "SHIPPING", "address1": "123 Main Street", "city": "New York", "state": "NY", "postalCode": "10110"}],
    })
}

async fn publish_customer(kafka: &Kafka, revision: i64) {
    let mut body = person(&format!("First{revision}"));
    let rest = json!({
        "id": "123456", "revision": revision, "changeType": "CREATED", "changedAt": "2026-11-23T10:00:00.000Z",
        "changedBy": "anonymous",
        "createdAt": "2026-11-23T10:00:00.000Z", "updatedAt": "2026-11-23T10:00:00.000Z",
    });
    let fields = body.as_object_mut().unwrap();
    fields.extend(rest.as_object().unwrap().clone());
    publish_change(kafka, body).await;
}

/// The service, ready, on its own servers.
struct Orders {
    client: Client,
    kafka: Kafka,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), ServiceError>>,
    _mongo: Mongo,
    _data: TempDir,
}

impl Orders {
    async fn start() -> Self {
        let mongo = Mongo::start(1).await.unwrap();
        let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
        let data = tempfile::tempdir().unwrap();
        let client = Client {
            http: reqwest::Client::new(),
            port: free_port().unwrap(),
        };
        let command = Command::try_parse_from([
            "orders",
            "--port",
            &client.port.to_string(),
            "--mongodb-uri",
            &mongo.uri(),
            "--kafka-brokers",
            &kafka.bootstrap(),
            "--topic-partitions",
            "3",
            "--data-dir",
            data.path().to_str().unwrap(),
            "--sealing-key",
            &BASE64_STANDARD.encode(SEALING_KEY),
            // Accounts is not running, so nobody claims the topics and signs events.
            "--accept-unsigned",
        ])
        .unwrap();
        let shutdown = Shutdown::new();
        let running = tokio::spawn(service::run(command.settings, shutdown.clone()));
        eventually("the service is ready", async || {
            client.status("/actuator/health/readiness").await == Some(200)
        })
        .await;
        Self {
            client,
            kafka,
            shutdown,
            running,
            _mongo: mongo,
            _data: data,
        }
    }

    async fn end(self) {
        self.shutdown.request("the test is over");
        timeout(Duration::from_secs(6), self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

const PLACE: &str = "mutation { placeOrder(input: {customerId: \"123456\", items: [
    {product: {guid: \"p-1\", title: \"Hammer\", price: \"12.50\"}, quantity: 2}]}) { order { id } } }";
const ADVANCE: &str = "mutation($id: ID!, $to: OrderStatus!) { advanceOrder(id: $id, to: $to) { order { revision } } }";

/// This is one test, because metrics belong to the process and a process runs one service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customers_event_becomes_orders_whose_changes_reach_subscribers_and_a_late_key_is_waited_for()
 {
    require!(mongod, kafka);
    let orders = Orders::start().await;
    a_customers_event_becomes_orders_whose_changes_reach_subscribers(&orders).await;
    a_customer_whose_key_comes_after_the_event_is_waited_for_and_not_taken_for_erased(&orders)
        .await;
    orders.end().await;
}

async fn a_customers_event_becomes_orders_whose_changes_reach_subscribers(orders: &Orders) {
    let (client, kafka) = (&orders.client, &orders.kafka);
    publish_customer(kafka, 1).await;
    eventually("the customer is replicated", async || {
        client.status("/orders/order/123456").await == Some(200)
    })
    .await;

    let mut updates = client
        .subscribe("subscription { orderUpdated(customerId: \"123456\") { cursor type order { id total customer { name { firstName } } } } }")
        .await;
    let mut of_customer = client
        .subscribe("subscription { customerUpdated(id: \"123456\") { name { firstName } replica { revision } } }")
        .await;
    eventually("both listen", async || {
        let metrics = client
            .http
            .get(client.at("/actuator/prometheus"))
            .send()
            .await;
        let text = metrics.unwrap().text().await.unwrap();
        let listening = |line: &&str| line.starts_with("live_subscribers{") && line.ends_with(" 1");
        text.lines().filter(listening).count() == 2
    })
    .await;
    let placed = client.ask(PLACE, json!({})).await;
    let id = placed["placeOrder"]["order"]["id"].clone();
    let update = updates.next().await["orderUpdated"].clone();
    assert_eq!(update["type"], "PLACED");
    assert_eq!(
        update["order"],
        json!({"id": id, "total": "25.00", "customer": {"name": {"firstName": "First1"}}})
    );

    // The order changes while nobody listens. A resumed subscription gets these changes and the later ones.
    drop(updates);
    client
        .ask(ADVANCE, json!({"id": id, "to": "CONFIRMED"}))
        .await;
    let after = update["cursor"].as_str().unwrap();
    let mut resumed = client
        .subscribe(&format!(
            "subscription {{ orderUpdated(customerId: \"123456\", after: \"{after}\") {{ type }} }}"
        ))
        .await;
    assert_eq!(resumed.next().await["orderUpdated"]["type"], "CONFIRMED");
    client
        .ask(ADVANCE, json!({"id": id, "to": "SHIPPED"}))
        .await;
    assert_eq!(resumed.next().await["orderUpdated"]["type"], "SHIPPED");

    publish_customer(kafka, 2).await;
    let customer = of_customer.next().await["customerUpdated"].clone();
    assert_eq!(
        customer,
        json!({"name": {"firstName": "First2"}, "replica": {"revision": 2}})
    );
    let changes = "query($id: ID!) { order(id: $id) { changes { nodes { type revision } } } }";
    eventually("the audit trail holds all changes", async || {
        let answer = client.ask(changes, json!({"id": id})).await;
        answer["order"]["changes"]["nodes"]
            == json!([
                {"type": "PLACED", "revision": 1},
                {"type": "CONFIRMED", "revision": 2},
                {"type": "SHIPPED", "revision": 3},
            ])
    })
    .await;
}

async fn a_customer_whose_key_comes_after_the_event_is_waited_for_and_not_taken_for_erased(
    orders: &Orders,
) {
    let (client, kafka) = (&orders.client, &orders.kafka);
    let (key, wrapped) = DataKey::make(&Sealer::new(&SEALING_KEY), "7");
    let sealed = key.seal(person("Ada").to_string().as_bytes(), "customer/7/1");
    let change = json!({
        "id": "7", "revision": 1, "changeType": "CREATED", "changedAt": chrono::Utc::now(), "changedBy": "anonymous",
        "createdAt": chrono::Utc::now(), "updatedAt": chrono::Utc::now(),
        "sealed": sealed,
    });
    publish_change(kafka, change).await;
    eventually("the replica waits for the key", async || {
        let health = client.http.get(client.at("/actuator/health")).send();
        let health: Value = health.await.unwrap().json().await.unwrap();
        health["components"]["dataKeys"]["details"]["waiting"] == 1
    })
    .await;
    assert_eq!(client.status("/orders/order/7").await, Some(404));

    let body = json!({ "wrapped": wrapped }).to_string();
    let record = FutureRecord::to("accounts.customer.key")
        .key("7")
        .payload(&body);
    producer(kafka).send(record, LIMIT).await.unwrap();
    eventually("the customer is replicated", async || {
        client.status("/orders/order/7").await == Some(200)
    })
    .await;
    let name = "{ orderingCustomer(id: \"7\") { name { firstName } } }";
    let read = client.ask(name, json!({})).await;
    assert_eq!(read["orderingCustomer"]["name"]["firstName"], "Ada");
}
