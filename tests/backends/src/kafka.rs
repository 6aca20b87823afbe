//! An Apache Kafka cluster (KRaft) of one or three nodes. Each node is broker and controller.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;
use uuid::Uuid;

use crate::certificate::Certificate;
use crate::nodes::{ASK_LIMIT, Nodes, each_node};
use crate::port::Port;
use crate::server::Server;
use crate::{Error, discovery};

/// How long a cluster may take until all its brokers are known and have leaders.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What kind of cluster to start.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// 1 or 3. With 3, topics are replicated to all nodes, and two must have a record before it is acknowledged.
    pub nodes: usize,
    /// Whether clients have to use SASL_SSL with PLAIN, as on Confluent Cloud.
    pub sasl_ssl: bool,
    /// Further lines of `server.properties`. They override the kit's.
    pub properties: Vec<(String, String)>,
    /// Options of the JVM. The default starts fast; a benchmark needs other options.
    pub java_options: Vec<String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        let java_options = [
            "-Xms64m",
            "-Xmx384m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ];
        Self {
            nodes: 1,
            sasl_ssl: false,
            properties: Vec::new(),
            java_options: java_options.map(str::to_owned).to_vec(),
        }
    }
}

impl KafkaOptions {
    /// One node whose JVM compiles as in production, and so starts more slowly.
    #[must_use]
    pub fn for_measuring() -> Self {
        let java_options = ["-Xms256m", "-Xmx512m"];
        Self {
            java_options: java_options.map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }
}

/// The credentials of a client for a SASL_SSL listener.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User name (Confluent Cloud calls it the API key).
    pub user: String,
    /// Its password (the API secret).
    pub password: String,
    /// The certificate to trust, in PEM, for `ssl.ca.location`.
    pub authority: PathBuf,
}

/// A cluster on loopback ports, with data in a temporary directory. All its nodes end when it is dropped.
///
/// Topics are not created automatically, as on Confluent Cloud. A dead broker is detected after 3 s, so that failover
/// tests are fast.
#[derive(Debug)]
pub struct Kafka {
    nodes: Nodes,
    ports: Vec<Ports>,
    options: KafkaOptions,
    credentials: Option<Credentials>,
    data: TempDir,
}

#[derive(Debug)]
struct Ports {
    client: Port,
    /// For traffic between brokers. Unencrypted even where clients use TLS.
    broker: Port,
    controller: Port,
}

impl Kafka {
    /// Starts a cluster and waits until every node answers a client and knows all others.
    ///
    /// # Errors
    /// When Kafka isn't installed, the number of nodes isn't 1 or 3, or the cluster isn't ready within 120 s.
    pub async fn start(options: KafkaOptions) -> Result<Self, Error> {
        let data = tempfile::Builder::new().prefix("tandem-kafka-").tempdir()?;
        let certificate = match options.sasl_ssl {
            true => Some(Certificate::make(data.path(), "only-for-this-test")?),
            false => None,
        };
        let kafka = Self {
            nodes: Nodes::new(options.nodes)?,
            ports: (0..options.nodes)
                .map(|_| {
                    Ok(Ports {
                        client: Port::reserve()?,
                        broker: Port::reserve()?,
                        controller: Port::reserve()?,
                    })
                })
                .collect::<Result<_, Error>>()?,
            credentials: certificate.as_ref().map(|certificate| Credentials {
                user: "tandem".to_owned(),
                password: "right-password".to_owned(),
                authority: certificate.authority.clone(),
            }),
            options,
            data,
        };
        for node in 0..kafka.nodes() {
            kafka.configure(node, certificate.as_ref())?;
        }
        kafka.format().await?;
        for node in 0..kafka.nodes() {
            kafka.spawn(node)?;
        }
        for node in 0..kafka.nodes() {
            kafka.wait_for_node(node).await?;
        }
        Ok(kafka)
    }

    /// Addresses of all nodes for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = (0..self.nodes()).map(|node| self.address(node)).collect();
        addresses.join(",")
    }

    /// `host:port` of a node's listener for clients.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].client.number())
    }

    /// The id under which a node is known in Kafka's metadata.
    #[must_use]
    pub fn broker_id(node: usize) -> i32 {
        i32::try_from(node).map_or(i32::MAX, |node| node.saturating_add(1))
    }

    /// Number of nodes, dead ones too.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.count()
    }

    /// The credentials that a client needs. `None` when the listener is unencrypted.
    #[must_use]
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The librdkafka properties that a client needs, including `bootstrap.servers`.
    #[must_use]
    pub fn client_properties(&self) -> Vec<(String, String)> {
        let mut properties = vec![("bootstrap.servers".to_owned(), self.bootstrap())];
        if let Some(credentials) = &self.credentials {
            let authority = credentials.authority.to_string_lossy();
            for (key, value) in [
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", credentials.user.as_str()),
                ("sasl.password", credentials.password.as_str()),
                ("ssl.endpoint.identification.algorithm", "https"),
                ("ssl.ca.location", &*authority),
            ] {
                properties.push((key.to_owned(), value.to_owned()));
            }
        }
        properties
    }

    each_node!();

    /// Restarts a node that was killed or stopped, with its ports and data, and waits until it answers.
    ///
    /// # Errors
    /// When the node is running, or has not rejoined the others within 120 s.
    pub async fn start_again(&self, node: usize) -> Result<(), Error> {
        self.nodes.must_be_down(node)?;
        self.spawn(node)?;
        self.wait_for_node(node).await
    }

    fn node_directory(&self, node: usize) -> PathBuf {
        self.data.path().join(node.to_string())
    }

    fn configuration(&self, node: usize) -> PathBuf {
        self.node_directory(node).join("server.properties")
    }

    /// Writes the node's `server.properties`.
    fn configure(&self, node: usize, certificate: Option<&Certificate>) -> Result<(), Error> {
        let directory = self.node_directory(node);
        fs::create_dir_all(&directory)?;
        let ports = &self.ports[node];
        let (client, broker, controller) = (
            ports.client.number(),
            ports.broker.number(),
            ports.controller.number(),
        );
        let voters: Vec<String> = (0..self.nodes())
            .map(|node| {
                format!(
                    "{}@127.0.0.1:{}",
                    Self::broker_id(node),
                    self.ports[node].controller.number()
                )
            })
            .collect();
        let (replicas, in_sync) = if self.nodes() == 3 { (3, 2) } else { (1, 1) };
        let client_protocol = if certificate.is_some() {
            "SASL_SSL"
        } else {
            "PLAINTEXT"
        };
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id={id}\n\
             controller.quorum.voters={voters}\n\
             listeners=CLIENT://127.0.0.1:{client},BROKER://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=CLIENT://127.0.0.1:{client},BROKER://127.0.0.1:{broker}\n\
             listener.security.protocol.map=CLIENT:{client_protocol},BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=BROKER\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={data}\n\
             auto.create.topics.enable=false\n\
             default.replication.factor={replicas}\n\
             min.insync.replicas={in_sync}\n\
             offsets.topic.replication.factor={replicas}\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr={in_sync}\n\
             transaction.state.log.num.partitions=4\n\
             share.coordinator.state.topic.replication.factor={replicas}\n\
             share.coordinator.state.topic.min.isr={in_sync}\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.session.timeout.ms=3000\n\
             broker.heartbeat.interval.ms=500\n\
             replica.lag.time.max.ms=5000\n",
            id = Self::broker_id(node),
            voters = voters.join(","),
            data = directory.join("data").display(),
        );
        if let (Some(certificate), Some(credentials)) = (certificate, &self.credentials) {
            let (user, password) = (&credentials.user, &credentials.password);
            text += &format!(
                "listener.name.client.ssl.keystore.type=PKCS12\n\
                 listener.name.client.ssl.keystore.location={store}\n\
                 listener.name.client.ssl.keystore.password={secret}\n\
                 listener.name.client.ssl.key.password={secret}\n\
                 listener.name.client.sasl.enabled.mechanisms=PLAIN\n\
                 listener.name.client.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";\n",
                store = certificate.key_store.display(),
                secret = certificate.password,
            );
        }
        for (key, value) in &self.options.properties {
            // Java uses the last of two lines with the same key. Writing to a string cannot fail.
            let _ = writeln!(text, "{key}={value}");
        }
        fs::write(self.configuration(node), text)?;
        Ok(())
    }

    /// Formats the storage of all nodes in parallel, because each format starts a JVM.
    async fn format(&self) -> Result<(), Error> {
        let cluster = URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
        let mut running = Vec::new();
        for node in 0..self.nodes() {
            // With `=`, because an id may begin with a dash.
            let mut command = self.java("kafka.tools.StorageTool")?;
            command
                .arg("format")
                .arg(format!("--cluster-id={cluster}"))
                .arg("-c")
                .arg(self.configuration(node));
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            running.push(tokio::task::spawn_blocking(move || command.output()));
        }
        for task in running {
            let output = task.await.map_err(std::io::Error::other)??;
            if !output.status.success() {
                let said = [output.stdout, output.stderr].concat();
                let output = String::from_utf8_lossy(&said).into_owned();
                return Err(Error::Tool {
                    tool: "Kafka's StorageTool",
                    output,
                });
            }
        }
        Ok(())
    }

    fn java(&self, class: &str) -> Result<Command, Error> {
        let java = discovery::java("java").ok_or(Error::NotInstalled("java"))?;
        let libraries = discovery::kafka_libs().ok_or(Error::NotInstalled("Kafka"))?;
        let mut command = Command::new(java);
        command
            .args(&self.options.java_options)
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(Path::new(&libraries).join("*"))
            .arg(class);
        Ok(command)
    }

    fn spawn(&self, node: usize) -> Result<(), Error> {
        let mut command = self.java("kafka.Kafka")?;
        command.arg(self.configuration(node));
        let server = Server::start(
            &mut command,
            &self.node_directory(node).join("server.log"),
            self.data.path(),
        )?;
        self.nodes.put(node, server)
    }

    /// Waits until this node answers a client and reports every running node as a broker.
    async fn wait_for_node(&self, node: usize) -> Result<(), Error> {
        let mut config = ClientConfig::new();
        config.extend(self.client_properties());
        config.set("bootstrap.servers", self.address(node));
        // Refused connections are expected during this wait, so they are not logged.
        config
            .set("log_level", "0")
            .set("reconnect.backoff.max.ms", "250");
        let consumer: Arc<BaseConsumer> = Arc::new(config.create()?);
        let expected = (0..self.nodes())
            .filter(|node| self.nodes.is_up(*node))
            .count();
        self.nodes
            .poll(
                node,
                &format!("Kafka node {node}"),
                START_LIMIT,
                async || {
                    let consumer = Arc::clone(&consumer);
                    let metadata = tokio::task::spawn_blocking(move || {
                        consumer.fetch_metadata(None, ASK_LIMIT)
                    })
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?;
                    let brokers = metadata.brokers();
                    let itself = brokers
                        .iter()
                        .any(|broker| broker.id() == Self::broker_id(node));
                    if itself && brokers.len() >= expected {
                        Ok(())
                    } else {
                        Err(format!("{} of {expected} brokers are known", brokers.len()))
                    }
                },
            )
            .await
    }
}
