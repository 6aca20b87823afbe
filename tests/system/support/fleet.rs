//! Several instances of each service, and gateways, on one real MongoDB and one real Kafka. Each is a process that can
//! be restarted with the same port.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::ClientConfig;
use tandem_backends::{Kafka, KafkaOptions, Mongo, free_port};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use super::{Client, Process, Signal, TANDEM, command_of, poll};

/// How long a process may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(40);

/// One process on its own port.
pub struct Instance {
    pub process: Process,
    pub service: &'static str,
    pub port: u16,
    pub url: String,
    program: PathBuf,
    flags: Vec<String>,
}

/// How a stopped process ended.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// How long it took.
    pub after: Duration,
    /// Whether it had to be killed when its grace period was over.
    pub killed: bool,
}

impl Instance {
    /// Stops it like a cluster that removes a pod: after the grace period it is killed.
    pub fn stop(&mut self, grace: Duration) -> Stopped {
        let told = Instant::now();
        self.process.signal(Signal::TERM);
        let mut killed = false;
        while self.process.ended().is_none() {
            if told.elapsed() > grace && !killed {
                killed = true;
                self.process.signal(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Stopped {
            after: told.elapsed(),
            killed,
        }
    }

    pub fn graphql(&self) -> String {
        format!("{}/graphql", self.url)
    }
}

/// Real servers, and the instances that share them.
pub struct Fleet {
    pub runtime: Runtime,
    /// For requests on the runtime.
    pub http: reqwest::Client,
    mongo: Mongo,
    kafka: Kafka,
    directory: TempDir,
}

impl Fleet {
    /// The servers. The test has called `require!(mongod, kafka)`.
    pub fn new() -> Self {
        Self::with(KafkaOptions::default())
    }

    /// Like [`Self::new`], with these options of Kafka.
    pub fn with(options: KafkaOptions) -> Self {
        let runtime = Runtime::new().unwrap();
        let (mongo, kafka) = runtime.block_on(async {
            let (mongo, kafka) = tokio::join!(Mongo::start(1), Kafka::start(options));
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
            http: reqwest::Client::new(),
            mongo,
            kafka,
            directory,
        }
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("sealing.key")
    }

    /// Starts another instance of a service and waits until it is ready.
    pub fn instance(&self, service: &'static str) -> Instance {
        self.instance_of(Path::new(TANDEM), service)
    }

    /// Like [`Self::instance`], with another binary.
    pub fn instance_of(&self, program: &Path, service: &'static str) -> Instance {
        let flags = [
            "--mongodb-uri".to_owned(),
            self.mongo.uri(),
            "--kafka-brokers".to_owned(),
            self.kafka.bootstrap(),
            "--sealing-key-file".to_owned(),
            self.key_file().display().to_string(),
        ];
        start(program, service, free_port().unwrap(), flags.into())
    }

    /// Starts another gateway for services at these addresses and waits until it is ready.
    pub fn gateway(&self, accounts: &str, orders: &str) -> Instance {
        self.gateway_of(Path::new(TANDEM), accounts, orders)
    }

    /// Like [`Self::gateway`], with another binary.
    pub fn gateway_of(&self, program: &Path, accounts: &str, orders: &str) -> Instance {
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
        start(program, "router", port, flags.into())
    }

    /// Ends an instance with this signal, restarts it with the same port, and waits until it is ready.
    pub fn restart(&self, instance: &mut Instance, signal: Signal) {
        instance.process.signal(signal);
        instance.process.wait_for_end(STOP);
        self.start_again(instance);
    }

    /// Restarts an instance that has ended, with the same port, and waits until it is ready.
    pub fn start_again(&self, instance: &mut Instance) {
        let flags = std::mem::take(&mut instance.flags);
        *instance = start(&instance.program, instance.service, instance.port, flags);
    }

    /// A port that forwards connections to these ports in turn. If one does not answer, the next one is tried.
    pub fn forwarder(&self, ports: &[u16]) -> u16 {
        let forwarder = self.changing_forwarder();
        forwarder.leads_to(ports.to_vec());
        forwarder.port
    }

    /// Like [`Self::forwarder`], with ports that can be changed, like those of a Service in a cluster. It begins with
    /// none.
    pub fn changing_forwarder(&self) -> Forwarder {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = Arc::new(Mutex::new(Vec::new()));
        let (current, turn) = (Arc::clone(&ports), Arc::new(AtomicUsize::new(0)));
        self.runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let ports = current.lock().unwrap().clone();
                tokio::spawn(forward(client, ports, Arc::clone(&turn)));
            }
        });
        Forwarder { port, ports }
    }

    /// The processes of the servers, by name.
    pub fn servers(&self) -> [(&'static str, u32); 2] {
        [
            ("mongod", self.mongo.process_id(0).unwrap()),
            ("Kafka", self.kafka.process_id(0).unwrap()),
        ]
    }

    pub fn kafka_client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap());
        config
    }
}

/// A port that forwards to others.
pub struct Forwarder {
    pub port: u16,
    ports: Arc<Mutex<Vec<u16>>>,
}

impl Forwarder {
    /// From now on, new connections go to these ports. Open connections stay.
    pub fn leads_to(&self, ports: Vec<u16>) {
        *self.ports.lock().unwrap() = ports;
    }
}

fn start(program: &Path, service: &'static str, port: u16, flags: Vec<String>) -> Instance {
    let process = Process::start(
        command_of(program)
            .arg(service)
            .args(["--port", &port.to_string()])
            .args(&flags),
    );
    let instance = Instance {
        process,
        service,
        port,
        url: format!("http://127.0.0.1:{port}"),
        program: program.to_owned(),
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

/// Forwards a connection to the first port that accepts it, beginning with the one whose turn it is.
async fn forward(mut client: TcpStream, ports: Vec<u16>, turn: Arc<AtomicUsize>) {
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
