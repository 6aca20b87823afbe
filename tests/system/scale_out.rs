//! Several instances of each service on the same databases and topics behave as one.

use std::{path::PathBuf, time::Duration};

use rdkafka::ClientConfig;
use serde_json::json;
use tandem_backends::{Kafka, KafkaOptions, Mongo, free_port, require};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::support::{
    Client, Process, Signal, Transport,
    checker::{System, check},
    graph::{CREATE, PLACE, UPDATE, customer_input, order_input},
    poll, tandem_command,
    workload::{Targets, Workload},
};

const ORDER_UPDATED: &str = "subscription($customerId: ID) {
    orderUpdated(customerId: $customerId) { type order { id revision } } }";

/// One service process on its own port.
struct Instance {
    process: Process,
    url: String,
}

/// Real servers, and instances that share them.
struct Fleet {
    runtime: Runtime,
    mongo: Mongo,
    kafka: Kafka,
    directory: TempDir,
}

impl Fleet {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (mongo, kafka) = runtime.block_on(async {
            let (mongo, kafka) =
                tokio::join!(Mongo::start(1), Kafka::start(KafkaOptions::default()));
            (mongo.unwrap(), kafka.unwrap())
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("sealing.key"),
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        )
        .unwrap();
        Self {
            runtime,
            mongo,
            kafka,
            directory,
        }
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("sealing.key")
    }

    /// Starts one more instance and waits until it is ready.
    fn instance(&self, service: &str) -> Instance {
        let port = free_port().unwrap();
        let process = Process::start(
            tandem_command()
                .arg(service)
                .args(["--port", &port.to_string()])
                .args(["--mongodb-uri", &self.mongo.uri()])
                .args(["--kafka-brokers", &self.kafka.bootstrap()])
                .arg("--sealing-key-file")
                .arg(self.key_file()),
        );
        let instance = Instance {
            process,
            url: format!("http://127.0.0.1:{port}"),
        };
        let client = Client::new();
        poll(&format!("{service} on port {port} is ready"), || {
            let health = client.try_get(&format!("{}/actuator/health/readiness", instance.url));
            health
                .is_some_and(|answer| answer.status == 200)
                .then_some(())
        });
        instance
    }

    fn kafka_client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap());
        config
    }
}

fn graphql(instances: &[&Instance]) -> Vec<String> {
    instances
        .iter()
        .map(|instance| format!("{}/graphql", instance.url))
        .collect()
}

#[test]
fn instances_killed_and_added_in_the_middle_of_traffic_lose_nothing() {
    require!(mongod, kafka);
    let fleet = Fleet::new();
    let accounts = [fleet.instance("accounts"), fleet.instance("accounts")];
    let orders = [
        fleet.instance("orders"),
        fleet.instance("orders"),
        fleet.instance("orders"),
    ];
    let targets = Targets {
        accounts: graphql(&[&accounts[0], &accounts[1]]),
        orders: graphql(&[&orders[0], &orders[1], &orders[2]]),
    };
    let workload = Workload::start("fleet", 11, 4, &targets);
    workload.goes_on(200);
    accounts[1].process.signal(Signal::KILL);
    orders[2].process.signal(Signal::KILL);
    workload.goes_on(100);
    let newcomers = [fleet.instance("accounts"), fleet.instance("orders")];
    workload.goes_on(100);
    let history = workload.finish();
    for (accounts, orders) in [(&accounts[0], &orders[0]), (&newcomers[0], &newcomers[1])] {
        check(
            &System {
                accounts: &graphql(&[accounts])[0],
                orders: &graphql(&[orders])[0],
                kafka: fleet.kafka_client(),
            },
            &history,
        );
    }
    drop(fleet.runtime);
}

#[test]
fn what_one_instance_does_every_instance_shows_and_tells() {
    require!(mongod, kafka);
    let fleet = Fleet::new();
    let accounts = [fleet.instance("accounts"), fleet.instance("accounts")];
    let orders = [
        fleet.instance("orders"),
        fleet.instance("orders"),
        fleet.instance("orders"),
    ];
    let client = Client::new();
    let accounts = graphql(&[&accounts[0], &accounts[1]]);
    let orders = graphql(&[&orders[0], &orders[1], &orders[2]]);

    client.data(
        &accounts[0],
        CREATE,
        json!({"input": customer_input("shared", "Lovelace")}),
    );
    // The other instance reads, and writes on, what the first one wrote.
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    let updated = client.data(
        &accounts[1],
        UPDATE,
        json!({"id": "shared", "input": name, "expected": 1}),
    );
    assert_eq!(updated["updateCustomer"]["customer"]["revision"], 2);
    for url in &orders {
        let read = "{ orderingCustomer(id: \"shared\", minRevision: 2) { name { lastName } } }";
        let found = poll("the replica is up to date", || {
            let response = client.graphql(url, read, json!({}));
            response["errors"]
                .is_null()
                .then(|| response["data"].clone())
        });
        assert_eq!(found["orderingCustomer"]["name"]["lastName"], "King");
    }

    // An idempotency key counts on every instance.
    let mut order = order_input("shared");
    order["idempotencyKey"] = json!("once");
    let first = client.data(&orders[0], PLACE, json!({"input": order}));
    let again = client.data(&orders[1], PLACE, json!({"input": order}));
    assert_eq!(first, again);

    // A subscriber of any instance hears of what any other does.
    let live: Vec<_> = orders
        .iter()
        .map(|url| {
            client.subscribe(
                Transport::WebSocket,
                &format!("{url}/ws"),
                ORDER_UPDATED,
                json!({"customerId": "shared"}),
            )
        })
        .collect();
    let mut heard = vec![false; live.len()];
    poll("every instance tells of an order", || {
        client.data(&orders[0], PLACE, json!({"input": order_input("shared")}));
        for (subscription, heard) in live.iter().zip(&mut heard) {
            *heard |= subscription
                .next_within(Duration::from_millis(300))
                .is_some();
        }
        heard.iter().all(|heard| *heard).then_some(())
    });
}
