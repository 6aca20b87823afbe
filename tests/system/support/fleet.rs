//! Several instances of each service, and gateways, on one real MongoDB and one real Kafka, each a process that may be restarted where it was.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::ClientConfig;
use tandem_backends::{Kafka, KafkaOptions, Mongo, free_port};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use super::{Client, Process, Signal, poll, tandem_command};

/// How long a process that is told to stop may take.
const STOP: Duration = Duration::from_secs(40);

/// One process on its own port.
pub struct Instance {
    pub process: Process,
    pub service: &'static str,
    pub port: u16,
    pub url: String,
    flags: Vec<String>,
}

impl Instance {
    pub fn graphql(&self) -> String {
        format!("{}/graphql", self.url)
    }
}

/// Real servers, and instances that share them.
pub struct Fleet {
    pub runtime: Runtime,
    mongo: Mongo,
    kafka: Kafka,
    directory: TempDir,
}

impl Fleet {
    /// The servers. The test has said `require!(mongod, kafka)`.
    pub fn new() -> Self {
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

    /// Starts one more instance of a service and waits until it is ready.
    pub fn instance(&self, service: &'static str) -> Instance {
        let flags = [
            "--mongodb-uri".to_owned(),
            self.mongo.uri(),
            "--kafka-brokers".to_owned(),
            self.kafka.bootstrap(),
            "--sealing-key-file".to_owned(),
            self.key_file().display().to_string(),
        ];
        start(service, free_port().unwrap(), flags.into())
    }

    /// Starts one more gateway for services at these addresses and waits until it is ready.
    pub fn gateway(&self, accounts: &str, orders: &str) -> Instance {
        let port = free_port().unwrap();
        let data = self.directory.path().join(format!("gateway-{port}"));
        let flags = [
            "--accounts-url".to_owned(),
            accounts.to_owned(),
            "--orders-url".to_owned(),
            orders.to_owned(),
            "--data-dir".to_owned(),
            data.display().to_string(),
        ];
        start("router", port, flags.into())
    }

    /// Ends an instance by this signal, starts it again where it was, and waits until it is ready.
    pub fn restart(&self, instance: &mut Instance, signal: Signal) {
        instance.process.signal(signal);
        instance.process.wait_for_end(STOP);
        let flags = std::mem::take(&mut instance.flags);
        *instance = start(instance.service, instance.port, flags);
    }

    /// A port behind which connections go to these ports in turn, to the next where one does not answer.
    pub fn forwarder(&self, ports: &[u16]) -> u16 {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ports, turn): (Arc<[u16]>, _) = (ports.into(), Arc::new(AtomicUsize::new(0)));
        self.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, Arc::clone(&ports), Arc::clone(&turn)));
            }
        });
        port
    }

    pub fn kafka_client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap());
        config
    }
}

fn start(service: &'static str, port: u16, flags: Vec<String>) -> Instance {
    let process = Process::start(
        tandem_command()
            .arg(service)
            .args(["--port", &port.to_string()])
            .args(&flags),
    );
    let instance = Instance {
        process,
        service,
        port,
        url: format!("http://127.0.0.1:{port}"),
        flags,
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

/// Carries a connection to the first that takes it, beginning with the one whose turn it is.
async fn forward(mut client: TcpStream, ports: Arc<[u16]>, turn: Arc<AtomicUsize>) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    for number in 0..ports.len() {
        let port = ports[(first + number) % ports.len()];
        if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

/// The GraphQL addresses of instances.
pub fn graphql(instances: &[&Instance]) -> Vec<String> {
    instances
        .iter()
        .map(|instance| instance.graphql())
        .collect()
}
