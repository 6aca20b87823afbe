//! A MongoDB replica set of one or three nodes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::nodes::{ASK_LIMIT, Nodes, each_node};
use crate::port::Port;
use crate::server::Server;
use crate::{Error, discovery};

/// Name of the replica set.
const SET: &str = "tandem";

/// How long a set may take until a primary accepts writes.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A replica set on loopback ports, with data in a temporary directory. All its nodes end when it is dropped.
///
/// The election timeout is 2 s, so that failover tests are fast. Everything else is MongoDB's default.
#[derive(Debug)]
pub struct Mongo {
    nodes: Nodes,
    ports: Vec<Port>,
    /// Key and certificate of the listeners, where they also accept TLS.
    certificate: Option<PathBuf>,
    data: TempDir,
}

impl Mongo {
    /// Starts a replica set of 1 or 3 nodes and waits until its primary accepts writes and all others follow it.
    ///
    /// # Errors
    /// When `mongod` isn't installed, the number of nodes isn't 1 or 3, or the set isn't ready within 60 s.
    pub async fn start(nodes: usize) -> Result<Self, Error> {
        Self::start_set(nodes, false).await
    }

    /// Starts one node that also accepts TLS, with a certificate that nobody trusts.
    ///
    /// # Errors
    /// As [`Self::start`], and when no certificate can be made.
    pub async fn start_with_tls() -> Result<Self, Error> {
        Self::start_set(1, true).await
    }

    async fn start_set(nodes: usize, tls: bool) -> Result<Self, Error> {
        let data = tempfile::Builder::new()
            .prefix("tandem-mongod-")
            .tempdir()?;
        let certificate = match tls {
            true => Some(Certificate::make(data.path(), "only-for-this-test")?.pem(data.path())?),
            false => None,
        };
        let mongo = Self {
            nodes: Nodes::new(nodes)?,
            ports: (0..nodes)
                .map(|_| Port::reserve())
                .collect::<Result<_, _>>()?,
            certificate,
            data,
        };
        for node in 0..nodes {
            mongo.spawn(node)?;
        }
        mongo.initiate().await?;
        mongo.wait_until_whole(START_LIMIT).await?;
        Ok(mongo)
    }

    /// The connection string, without a database: all nodes and the name of the set.
    #[must_use]
    pub fn uri(&self) -> String {
        let hosts: Vec<String> = (0..self.nodes.count())
            .map(|node| self.address(node))
            .collect();
        format!("mongodb://{}/?replicaSet={SET}", hosts.join(","))
    }

    /// `host:port` of a node.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node].number())
    }

    /// Number of nodes, dead ones too.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.count()
    }

    /// Kills the primary (SIGKILL) and returns its index.
    ///
    /// # Errors
    /// When no node is primary within 30 s.
    pub async fn kill_primary(&self) -> Result<usize, Error> {
        let primary = self.wait_for_primary(Duration::from_secs(30)).await?;
        self.kill(primary)?;
        Ok(primary)
    }

    each_node!();

    /// Restarts a node that was killed or stopped, with its port and data, and waits until it answers.
    ///
    /// # Errors
    /// When the node is running, or doesn't answer within 60 s.
    pub async fn start_again(&self, node: usize) -> Result<(), Error> {
        self.nodes.must_be_down(node)?;
        self.spawn(node)?;
        let client = self.direct(node).await?;
        self.nodes
            .poll(node, &format!("mongod {node}"), START_LIMIT, async || {
                let state = replica_state(&client).await?;
                // 1 is PRIMARY, 2 is SECONDARY.
                if matches!(state, 1 | 2) {
                    Ok(())
                } else {
                    Err(format!("replica state {state}"))
                }
            })
            .await
    }

    /// The primary, as soon as there is one.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub async fn wait_for_primary(&self, limit: Duration) -> Result<usize, Error> {
        let mut clients = Vec::new();
        for node in 0..self.nodes.count() {
            clients.push(self.direct(node).await?);
        }
        self.nodes
            .poll(0, "a MongoDB primary", limit, async || {
                for (node, client) in clients.iter().enumerate() {
                    // A killed node is not asked, because each request would take its whole time limit.
                    if self.nodes.is_up(node)
                        && hello(client).await.is_ok_and(|answer| {
                            answer.get_bool("isWritablePrimary").unwrap_or(false)
                        })
                    {
                        return Ok(node);
                    }
                }
                Err("no node says that it is the primary".to_owned())
            })
            .await
    }

    fn spawn(&self, node: usize) -> Result<(), Error> {
        let mongod = discovery::mongod().ok_or(Error::NotInstalled("mongod"))?;
        let data = self.data.path().join(node.to_string());
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(mongod);
        command
            .args(["--replSet", SET, "--bind_ip", "127.0.0.1", "--nounixsocket"])
            .args(["--port", &self.ports[node].number().to_string()])
            .arg("--dbpath")
            .arg(&data)
            // Small caches: several of these servers share a machine with the build.
            .args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "128"])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
        if let Some(certificate) = &self.certificate {
            command
                .args(["--tlsMode", "allowTLS", "--tlsCertificateKeyFile"])
                .arg(certificate);
        }
        let server = Server::start(
            &mut command,
            &self.data.path().join(format!("{node}.log")),
            self.data.path(),
        )?;
        self.nodes.put(node, server)
    }

    /// Makes the nodes one replica set, after each of them listens.
    async fn initiate(&self) -> Result<(), Error> {
        for node in 0..self.nodes.count() {
            let client = self.direct(node).await?;
            self.nodes
                .poll(node, &format!("mongod {node}"), START_LIMIT, async || {
                    hello(&client)
                        .await
                        .map(|_| ())
                        .map_err(|error| error.to_string())
                })
                .await?;
        }
        let members: Vec<Document> = (0..self.nodes.count())
            .map(|node| doc! { "_id": i32::try_from(node).unwrap_or_default(), "host": self.address(node) })
            .collect();
        let configuration = doc! {
            "_id": SET,
            "members": members,
            "settings": { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500 },
        };
        let client = self.direct(0).await?;
        admin(&client)
            .run_command(doc! { "replSetInitiate": configuration })
            .await?;
        Ok(())
    }

    /// Waits for a primary, and until all others are its secondaries.
    async fn wait_until_whole(&self, limit: Duration) -> Result<(), Error> {
        let primary = self.wait_for_primary(limit).await?;
        for node in (0..self.nodes.count()).filter(|node| *node != primary) {
            let client = self.direct(node).await?;
            self.nodes
                .poll(
                    node,
                    &format!("MongoDB secondary {node}"),
                    limit,
                    async || match replica_state(&client).await? {
                        1 | 2 => Ok(()),
                        state => Err(format!("replica state {state}")),
                    },
                )
                .await?;
        }
        Ok(())
    }

    /// A client of one node, whatever its role in the set.
    async fn direct(&self, node: usize) -> Result<Client, Error> {
        let mut options = ClientOptions::parse(format!("mongodb://{}", self.address(node))).await?;
        options.direct_connection = Some(true);
        options.server_selection_timeout = Some(ASK_LIMIT);
        options.connect_timeout = Some(ASK_LIMIT);
        // The driver notices a node that has come up only at its next heartbeat.
        options.heartbeat_freq = Some(Duration::from_millis(500));
        Ok(Client::with_options(options)?)
    }
}

fn admin(client: &Client) -> Database {
    client.database("admin")
}

async fn hello(client: &Client) -> Result<Document, mongodb::error::Error> {
    admin(client).run_command(doc! { "hello": 1 }).await
}

async fn replica_state(client: &Client) -> Result<i32, String> {
    let status = admin(client)
        .run_command(doc! { "replSetGetStatus": 1 })
        .await
        .map_err(|error| error.to_string())?;
    status.get_i32("myState").map_err(|error| error.to_string())
}
