//! The embedded broker: a durable, single-node broker of the Kafka protocol in one SQLite file.
//!
//! It is here so that Tandem runs with nothing installed. In production the broker is Apache Kafka or a service of
//! that protocol, and nothing outside this module knows the difference. The protocol and the storage come from
//! `tansu-broker` and `tansu-storage`; we add what the services need and they lack:
//!
//! - a waiting fetch that is answered the moment a record arrives ([`long_poll`]; theirs sleeps and looks again);
//! - an index over the record headers ([`index`]), without which reading a topic takes quadratic time;
//! - a listener that stops at once, prints nothing, and survives an unreadable request ([`listener`]);
//! - a coordinator of the consumer groups that loses nobody ([`groups`]);
//! - a watch over the storage, which ends the process when the storage has died ([`watch`]).
//!
//! # What it does not do
//!
//! - Transactions: a transactional producer does not work. The idempotent producer does.
//! - DeleteRecords: refused with `INVALID_REQUEST`-class error 44 (`POLICY_VIOLATION`).
//! - Durability: a record that was acknowledged survives the death of the process, not that of the machine (the log
//!   is written with `synchronous = normal`), as with one node of Kafka.
//! - Several nodes, authentication, encryption: it listens on the loopback interface alone.

mod groups;
mod index;
mod listener;
mod long_poll;
mod watch;

use std::path::{Path, PathBuf};

use tandem_kit::telemetry::LogSettings;
use tansu_storage::{BrokerRegistrationRequest, Storage, StorageContainer};
use tokio_util::sync::CancellationToken;
use tracing::info;
use url::Url;
use uuid::Uuid;

/// The name of the cluster, as clients see it in the metadata.
const CLUSTER: &str = "tandem";
/// The id of the only node. It must not change: it is part of the stored state.
const NODE: i32 = 1;
/// The file in the data directory that holds topics, records and offsets.
const FILE: &str = "broker.db";

/// What `tandem broker` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BrokerSettings {
    /// Port on the loopback interface, 1 to 65535.
    #[arg(long, env = "TANDEM_BROKER_PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,

    /// Directory of the broker's file. It is made when it does not exist.
    #[arg(long, env = "TANDEM_BROKER_DATA_DIR", default_value = ".tandem/broker")]
    pub(crate) data_dir: PathBuf,
}

/// Why the broker could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// The directory cannot be made or entered.
    #[error("--data-dir: cannot use {} for the broker's data: {source}", path.display())]
    Directory {
        /// The directory that was asked for.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The port is not free, or may not be used.
    #[error("--port: cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The broker's address does not make a URL.
    #[error("the broker's address is not a URL: {0}")]
    Address(#[from] url::ParseError),
    /// The storage refused its file.
    #[error("the broker's storage cannot be opened: {0}")]
    Storage(#[from] tansu_storage::Error),
    /// The index over the record headers could not be made.
    #[error("the broker's storage cannot be indexed: {0}")]
    Index(#[from] libsql::Error),
    /// The coordinator of the consumer groups could not be made.
    #[error("the broker's group coordinator cannot start: {0}")]
    Coordinator(#[from] tansu_broker::Error),
    /// The storage stopped answering.
    #[error(
        "the broker's storage stopped answering; the process ends so that it can be started again"
    )]
    StorageGone,
}

/// Leaves the broker library out of the log, unless it is asked for: it logs every number that it decodes, and calls the
/// answer "this topic exists" an error. What goes wrong with a connection or with the storage is logged here.
pub(crate) fn log_settings(mut settings: LogSettings) -> LogSettings {
    if !settings.log.contains("tansu") {
        // The directive is a prefix of the names of all its crates.
        settings.log.push_str(",tansu=off");
    }
    settings
}

/// Serves until `stop` is cancelled.
///
/// The process changes into the data directory: the storage takes relative paths only.
///
/// # Errors
///
/// [`BrokerError`] when the directory, the port or the file cannot be used, or when the storage dies.
pub(crate) async fn run(
    settings: BrokerSettings,
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    let BrokerSettings { port, data_dir } = settings;
    std::fs::create_dir_all(&data_dir)
        .and_then(|()| std::env::set_current_dir(&data_dir))
        .map_err(|source| BrokerError::Directory {
            path: data_dir.clone(),
            source,
        })?;
    // The port first: two brokers must never have one file open.
    let socket = listener::bind(port).map_err(|source| BrokerError::Listen { port, source })?;

    let storage = StorageContainer::builder()
        .cluster_id(CLUSTER)
        .node_id(NODE)
        .advertised_listener(Url::parse(&format!("tcp://127.0.0.1:{port}"))?)
        .storage(Url::parse(&format!("sqlite://{FILE}"))?)
        .silent(true)
        .build()
        .await?;
    index::ensure(Path::new(FILE)).await?;
    storage
        .register_broker(BrokerRegistrationRequest {
            broker_id: NODE,
            cluster_id: CLUSTER.to_owned(),
            incarnation_id: Uuid::now_v7(),
            rack: None,
        })
        .await?;

    info!(port, file = %data_dir.join(FILE).display(), "the broker answers");
    tokio::select! {
        served = listener::serve(socket, CLUSTER, storage.clone()) => served,
        () = watch::storage_gone(storage) => Err(BrokerError::StorageGone),
        () = stop.cancelled() => {
            info!("the broker stops");
            Ok(())
        }
    }
}
