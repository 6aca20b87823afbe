//! A durable single-node broker of the Kafka protocol, in one file and one process.
//!
//! It lets a system that needs Kafka run without installing anything. In production the broker is Apache Kafka or a
//! service with that protocol, and clients see no difference.
//!
//! - Record batches are stored as the bytes that producers send, in a redb file. A fetch copies them (`record_batch`,
//!   `log`).
//! - An answer at `acks=1` or `acks=all` is sent after the records are flushed to disk. All requests in flight share a
//!   flush.
//! - Idempotent producers, consumer groups, retention, compaction, offsets by time, topic ids.
//!
//! What it lacks: transactions (refused), other nodes, authentication, encryption. It listens only on the loopback
//! interface.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

mod api;
mod groups;
mod log;
mod record_batch;
mod server;
mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Broker,
    groups::Membership,
    log::{Log, Unusable, now},
};

/// The name of the file in the data directory.
pub const FILE: &str = "log.redb";

/// The settings of a broker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port on the loopback interface; 0 lets the system choose.
    pub port: u16,
    /// Directory of the broker's file. It is created if it does not exist.
    pub data_dir: PathBuf,
    /// How often the broker checks for expired records and for compaction.
    pub cleaning_interval: Duration,
}

impl Settings {
    /// The default of [`Self::cleaning_interval`].
    pub const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
}

/// Why a broker could not start, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The directory cannot be created.
    #[error("cannot use {} for the broker's data: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The port is in use, or may not be used.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port.
        port: u16,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file cannot be opened, or is not a broker's file.
    #[error("the broker's file {} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A bug has ended the writer of the log.
    #[error(
        "the writer of the broker's log has ended; the process ends so that it can be started again"
    )]
    WriterEnded,
}

/// A broker that has opened its port and its file.
#[derive(Debug)]
pub struct OpenBroker {
    listener: TcpListener,
    broker: Arc<Broker>,
    writer_ended: tokio::sync::oneshot::Receiver<()>,
    cleaning_interval: Duration,
}

/// Opens a broker; [`OpenBroker::serve`] runs it. Must be called in a tokio runtime.
///
/// # Errors
/// [`BrokerError`] if the directory, the port or the file cannot be used.
pub fn open(settings: &Settings) -> Result<OpenBroker, BrokerError> {
    let port = settings.port;
    let listen = |source| BrokerError::Listen { port, source };
    std::fs::create_dir_all(&settings.data_dir).map_err(|source| BrokerError::Directory {
        path: settings.data_dir.clone(),
        source,
    })?;
    let listener = server::bind(port).map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    let path = settings.data_dir.join(FILE);
    let (log, writer_ended) = Log::open_at(&path).map_err(|error| unusable(&path, &error))?;
    // Syncs the directory, so that the name of a new file is durable too. Some file systems cannot do this.
    if let Ok(directory) = std::fs::File::open(&settings.data_dir) {
        let _ = directory.sync_all();
    }
    Ok(OpenBroker {
        listener,
        broker: Arc::new(Broker {
            log,
            groups: Membership::default(),
            port,
        }),
        writer_ended,
        cleaning_interval: settings.cleaning_interval,
    })
}

fn unusable(path: &Path, error: &Unusable) -> BrokerError {
    BrokerError::Unusable {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

impl OpenBroker {
    /// The port of the broker.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.broker.port
    }

    /// Serves until `stop` is cancelled. Everything acknowledged is on disk by then.
    ///
    /// # Errors
    /// [`BrokerError::WriterEnded`] after a bug. The process should end, and recovers when it is started again.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), BrokerError> {
        let Self {
            listener,
            broker,
            writer_ended,
            cleaning_interval,
        } = self;
        let cleaning = stop.child_token();
        let cleaner = clean(Arc::clone(&broker), cleaning_interval, cleaning.clone());
        // Uses a separate thread, because compaction reads much at once.
        let runtime = tokio::runtime::Handle::current();
        let cleaner = tokio::task::spawn_blocking(move || runtime.block_on(cleaner));
        let outcome = tokio::select! {
            () = server::serve(listener, broker) => Ok(()),
            _ = writer_ended => Err(BrokerError::WriterEnded),
            () = stop.cancelled() => Ok(()),
        };
        cleaning.cancel();
        // The cleaner has a handle to the log. The log closes when the last handle is dropped.
        let _ = cleaner.await;
        outcome
    }
}

#[expect(clippy::disallowed_methods, reason = "the broker runs on real time")]
async fn clean(broker: Arc<Broker>, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            cleaned = broker.log.clean(now()) => if let Err(error) = cleaned {
                tracing::warn!(%error, "the log was not cleaned; that is done the next time");
            },
            () = stop.cancelled() => return,
        }
    }
}
