//! Real servers fail under load. Afterwards everything acknowledged must be there, and no service may have restarted.

use std::time::Duration;

use rdkafka::ClientConfig;
use serde_json::Value;
use tandem_backends::{Kafka, KafkaOptions, Mongo, require};
use tokio::runtime::Runtime;

use super::support::{
    Client, Tandem,
    checker::{System, check},
    poll_for,
    workload::{Targets, Workload},
};

/// The system on real servers, and the runtime that starts and breaks them.
struct Cluster {
    runtime: Runtime,
    mongo: Mongo,
    kafka: Kafka,
    tandem: Tandem,
}

impl Cluster {
    fn start(mongo_nodes: usize, kafka_nodes: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let (mongo, kafka) = runtime.block_on(async {
            let options = KafkaOptions {
                nodes: kafka_nodes,
                ..KafkaOptions::default()
            };
            let (mongo, kafka) = tokio::join!(Mongo::start(mongo_nodes), Kafka::start(options));
            (mongo.unwrap(), kafka.unwrap())
        });
        let tandem = Tandem::builder()
            .flag("--no-restart")
            .flag("--mongodb-uri")
            .flag(mongo.uri())
            .flag("--kafka-brokers")
            .flag(kafka.bootstrap())
            .start();
        Self {
            runtime,
            mongo,
            kafka,
            tandem,
        }
    }

    fn workload(&self, prefix: &str) -> Workload {
        let targets = Targets {
            accounts: vec![self.tandem.accounts_url("/graphql")],
            orders: vec![self.tandem.orders_url("/graphql")],
        };
        Workload::start(prefix, 7, 4, &targets)
    }

    fn kafka_client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap());
        config
    }

    /// Stops the workload and checks the system. The services must be the processes that were started.
    #[track_caller]
    fn check(&self, workload: Workload, children: &[u32]) {
        let history = workload.finish();
        check(
            &System {
                accounts: &self.tandem.accounts_url("/graphql"),
                orders: &self.tandem.orders_url("/graphql"),
                kafka: self.kafka_client(),
            },
            &history,
        );
        assert_eq!(self.tandem.children(), children, "a service was restarted");
        for child in children {
            assert!(super::support::is_alive(*child), "a service has died");
        }
        self.readiness("UP");
    }

    /// Waits until accounts and orders report this readiness. Their liveness must be up all the time.
    #[track_caller]
    fn readiness(&self, wanted: &str) {
        let client = Client::new();
        for service in [self.tandem.accounts_url(""), self.tandem.orders_url("")] {
            poll_for(
                Duration::from_secs(90),
                &format!("{service} is {wanted}"),
                || {
                    let live = client.get(&format!("{service}/actuator/health/liveness"));
                    assert_eq!(live.status, 200, "liveness fell: {}", live.body);
                    let health: Value = client
                        .get(&format!("{service}/actuator/health/readiness"))
                        .json();
                    let up = health["status"] == "UP";
                    (up == (wanted == "UP")).then_some(())
                },
            );
        }
    }
}

#[test]
fn a_killed_mongodb_primary_loses_no_acknowledged_command() {
    require!(mongod, kafka);
    let cluster = Cluster::start(3, 1);
    let children = cluster.tandem.children();
    let workload = cluster.workload("primary");
    workload.goes_on(200);
    let dead = cluster
        .runtime
        .block_on(cluster.mongo.kill_primary())
        .unwrap();
    cluster
        .runtime
        .block_on(cluster.mongo.wait_for_primary(Duration::from_secs(60)))
        .unwrap();
    workload.goes_on(200);
    cluster
        .runtime
        .block_on(cluster.mongo.start_again(dead))
        .unwrap();
    workload.goes_on(100);
    cluster.check(workload, &children);
}

#[test]
fn a_killed_kafka_broker_loses_no_acknowledged_command() {
    require!(mongod, kafka);
    let cluster = Cluster::start(1, 3);
    let children = cluster.tandem.children();
    let workload = cluster.workload("broker");
    workload.goes_on(200);
    cluster.kafka.kill(0).unwrap();
    workload.goes_on(400);
    cluster
        .runtime
        .block_on(cluster.kafka.start_again(0))
        .unwrap();
    workload.goes_on(100);
    cluster.check(workload, &children);
}

#[test]
fn kafka_away_for_half_a_minute_delays_events_and_loses_none() {
    require!(mongod, kafka);
    let cluster = Cluster::start(1, 1);
    let children = cluster.tandem.children();
    let workload = cluster.workload("kafka");
    workload.goes_on(100);
    cluster.kafka.kill(0).unwrap();
    // Customers are served without Kafka. Readiness drops when the oldest pending event is too old (30 s by default).
    workload.goes_on(100);
    cluster.readiness("DOWN");
    cluster
        .runtime
        .block_on(cluster.kafka.start_again(0))
        .unwrap();
    workload.goes_on(100);
    cluster.check(workload, &children);
}

#[test]
fn mongodb_away_for_half_a_minute_refuses_commands_and_loses_none() {
    require!(mongod, kafka);
    let cluster = Cluster::start(1, 1);
    let children = cluster.tandem.children();
    let workload = cluster.workload("mongo");
    workload.goes_on(100);
    cluster.mongo.kill(0).unwrap();
    cluster.readiness("DOWN");
    let until = std::time::Instant::now() + Duration::from_secs(30);
    poll_for(
        Duration::from_secs(60),
        "half a minute without MongoDB",
        || (std::time::Instant::now() >= until).then_some(()),
    );
    cluster
        .runtime
        .block_on(cluster.mongo.start_again(0))
        .unwrap();
    workload.goes_on(100);
    cluster.check(workload, &children);
}
