//! What an operator sees when Kafka or MongoDB cannot be used: one sentence that says why and what to repair, in
//! health, in the log and from commands. Also which services stay ready meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_backends::{Kafka, KafkaOptions, Mongo, free_port, require};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::support::{Client, Process, Signal, Tandem, graph::UPDATE, poll, tandem_command};

const SECRET: &str = "wrong-password";

/// A single service that need not become ready.
struct Service {
    process: Process,
    port: u16,
    _directory: TempDir,
}

impl Service {
    fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let mut command = tandem_command();
        command
            .arg(name)
            .args(["--port", &port.to_string()])
            .arg("--data-dir")
            .arg(directory.path())
            .env(
                "TANDEM_SEALING_KEY",
                "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n",
            )
            .envs(environment.iter().copied());
        Self {
            process: Process::start(&mut command),
            port,
            _directory: directory,
        }
    }

    fn health(&self, client: &Client, path: &str) -> Option<(u16, Value)> {
        let url = format!("http://127.0.0.1:{}/actuator/health{path}", self.port);
        let answer = client.try_get(&url)?;
        Some((answer.status, answer.json()))
    }

    /// The error of a component, once it contains this text.
    fn says(&self, client: &Client, component: &str, text: &str) -> String {
        poll(&format!("{component} says: {text}"), || {
            let (_, health) = self.health(client, "")?;
            let told = health["components"][component]["details"]["error"].as_str()?;
            told.contains(text).then(|| told.to_owned())
        })
    }

    /// Stops the service and returns its log.
    fn log(mut self) -> String {
        self.process.signal(Signal::TERM);
        self.process.wait_for_end(Duration::from_secs(20));
        self.process.all_output().1
    }
}

/// Checks that it is one short sentence without secrets and without internals of the drivers.
fn is_a_sentence(told: &str) {
    assert!(told.len() < 320, "{told}");
    for inside in [
        SECRET,
        "Topology",
        "OperationTimedOut",
        "labels:",
        "Kind:",
        "(after",
    ] {
        assert!(!told.contains(inside), "{inside} in: {told}");
    }
}

fn tls_properties(kafka: &Kafka, without: &str, more: &str) -> String {
    let kept: Vec<String> = kafka
        .client_properties()
        .into_iter()
        .filter(|(key, _)| key != "bootstrap.servers" && key != without)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("{}\n{more}", kept.join("\n"))
}

#[test]
fn every_reason_why_kafka_is_out_of_reach_is_one_sentence() {
    require!(kafka);
    let runtime = Runtime::new().unwrap();
    let options = KafkaOptions {
        sasl_ssl: true,
        ..KafkaOptions::default()
    };
    let kafka = runtime.block_on(Kafka::start(options)).unwrap();
    let (_, port) = kafka
        .address(0)
        .rsplit_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .unwrap();
    let closed = format!("127.0.0.1:{}", free_port().unwrap());
    let trusted = tls_properties(&kafka, "", "");
    let client = Client::new();
    for (service, brokers, properties, said) in [
        (
            "accounts",
            closed.clone(),
            String::new(),
            "nothing listens on that port",
        ),
        (
            "orders",
            "kafka.invalid:9092".to_owned(),
            String::new(),
            "cannot be resolved",
        ),
        (
            "accounts",
            kafka.address(0),
            tls_properties(&kafka, "ssl.ca.location", ""),
            "is not trusted: set the property ssl.ca.location",
        ),
        // Another notation of 127.0.0.1, which no certificate contains.
        (
            "orders",
            format!("127.1:{port}"),
            trusted.clone(),
            "is for another host name: use a name",
        ),
        (
            "accounts",
            kafka.address(0),
            format!("{trusted}\nsasl.password={SECRET}"),
            "refuses the login",
        ),
    ] {
        let running = Service::start(
            service,
            &[
                ("TANDEM_KAFKA_BROKERS", &brokers),
                ("TANDEM_KAFKA_PROPERTIES", &properties),
            ],
        );
        let told = running.says(&client, "kafka", said);
        is_a_sentence(&told);
        let (_, health) = running.health(&client, "").unwrap();
        assert_eq!(health["components"]["kafka"]["status"], "DOWN");
        // It is out of service for another reason: its store is new, and asks the log what it should hold.
        assert_eq!(health["components"]["filling"]["status"], "OUT_OF_SERVICE");
        poll("the log says it too", || {
            running.process.errors().contains(said).then_some(())
        });
        let log = running.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
        assert_eq!(lines.len(), 1, "{said} in:\n{log}");
        assert!(!log.contains(SECRET), "{log}");
    }
    // A command prints the same, and does not wait for a timeout.
    let mut audit = tandem_command();
    audit.args(["audit", "customer", "1", "--kafka-brokers", &closed]);
    let mut audit = Process::start(&mut audit);
    assert!(!audit.wait_for_end(Duration::from_secs(30)).success());
    let (_, told) = audit.all_output();
    assert!(told.contains("nothing listens on that port"), "{told}");
    is_a_sentence(&told);
    drop(runtime);
}

#[test]
fn kafka_away_degrades_and_takes_nobody_out_of_service() {
    require!(kafka);
    let runtime = Runtime::new().unwrap();
    let kafka = runtime
        .block_on(Kafka::start(KafkaOptions::default()))
        .unwrap();
    let tandem = Tandem::builder()
        .kafka(kafka.bootstrap())
        .env("TANDEM_OUTBOX_LATE_SECONDS", "1")
        .start();
    let client = Client::new();
    tandem.customer(&client, "served");
    tandem.replicated(&client, "served", 1);
    kafka.kill(0).unwrap();
    // A command is answered as before. Its event waits.
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    client.data(
        &tandem.accounts_url("/graphql"),
        UPDATE,
        json!({"id": "served", "input": name}),
    );
    poll("the outbox is late, and says why", || {
        let answer = client.get(&tandem.accounts_url("/actuator/health/readiness"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let ready = answer.json();
        let outbox = &ready["components"]["outbox"];
        (ready["status"] == "DEGRADED"
            && outbox["status"] == "DEGRADED"
            && outbox["details"]["failure"]
                .to_string()
                .contains("nothing listens"))
        .then_some(())
    });
    for url in [
        tandem.accounts_url("/actuator/health"),
        tandem.orders_url("/actuator/health"),
    ] {
        poll("the component says why", || {
            let answer = client.get(&url);
            let kafka = answer.json()["components"]["kafka"].clone();
            assert_eq!(answer.status, 200, "{}", answer.body);
            kafka["details"]["error"]
                .as_str()?
                .contains("nothing listens on that port")
                .then_some(())
        });
    }
    runtime.block_on(kafka.start_again(0)).unwrap();
    tandem.replicated(&client, "served", 2);
    for url in [
        tandem.accounts_url("/actuator/health"),
        tandem.orders_url("/actuator/health"),
    ] {
        poll("all is well again", || {
            (client.get(&url).json()["status"] == "UP").then_some(())
        });
    }
}

#[test]
fn every_reason_why_mongodb_cannot_be_used_is_one_sentence() {
    require!(mongod);
    let runtime = Runtime::new().unwrap();
    let mongo = runtime.block_on(Mongo::start_with_tls()).unwrap();
    let kafka = format!("127.0.0.1:{}", free_port().unwrap());
    let closed = free_port().unwrap();
    let (host, plain) = (mongo.address(0), mongo.uri());
    let client = Client::new();
    for (service, uri, said) in [
        (
            "accounts",
            format!("mongodb://127.0.0.1:{closed}/"),
            "nothing listens on that port",
        ),
        (
            "orders",
            "mongodb://mongodb.invalid:27017/\n".to_owned(),
            "cannot be resolved",
        ),
        (
            "accounts",
            format!("mongodb://nobody:{SECRET}@{host}/?authSource=admin"),
            "refuses the login",
        ),
        ("orders", format!("{plain}&tls=true"), "is not trusted"),
    ] {
        let running = Service::start(
            service,
            &[
                ("TANDEM_KAFKA_BROKERS", &kafka),
                ("TANDEM_MONGODB_URI", &uri),
            ],
        );
        let told = running.says(&client, "store", said);
        is_a_sentence(&told);
        assert_eq!(running.health(&client, "/readiness").unwrap().0, 503);
        let log = running.log();
        assert!(log.contains(said), "{log}");
        log.lines()
            .filter(|line| line.contains(said))
            .for_each(is_a_sentence);
        assert!(!log.contains(SECRET), "{log}");
    }
    // A server that goes down later is reported in time for a probe.
    let running = Service::start(
        "accounts",
        &[
            ("TANDEM_KAFKA_BROKERS", &kafka),
            ("TANDEM_MONGODB_URI", &format!("{plain}\n")),
        ],
    );
    poll("the store is open", || {
        let (_, health) = running.health(&client, "")?;
        (health["components"]["store"]["status"] == "UP").then_some(())
    });
    mongo.kill(0).unwrap();
    is_a_sentence(&running.says(&client, "store", "nothing listens on that port"));
    drop(runtime);
}
