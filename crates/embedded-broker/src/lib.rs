//! A durable single-node broker of the Kafka protocol, in one file and one process.
//!
//! It is here so that a system that needs Kafka runs with nothing installed. In production the broker is Apache Kafka or a service of that
//! protocol, and clients do not know the difference.
//!
//! - Record batches are kept as the bytes that producers send, in a redb file; a fetch copies them (`record_batch`, `log`).
//! - An answer at `acks=1` or `acks=all` is given when the records are on disk, flushed; all requests in flight share a flush.
//! - Idempotent producers, consumer groups, retention, compaction, offsets by time, topic ids.
//!
//! What it has not: transactions (refused), other nodes, authentication, encryption. It listens on the loopback interface alone.
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

/// The file in the data directory.
pub const FILE: &str = "log.redb";

/// What a broker can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port on the loopback interface; 0 lets the system choose.
    pub port: u16,
    /// Directory of the broker's file. It is made when it does not exist.
    pub data_dir: PathBuf,
    /// How often is looked for what is past its retention or to be compacted.
    pub cleaning_interval: Duration,
}

impl Settings {
    /// How often is looked for what is past its retention or to be compacted, unless told otherwise.
    pub const CLEANING_INTERVAL: Duration = Duration::from_secs(60);
}

/// Why a broker could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The directory cannot be made.
    #[error("cannot use {} for the broker's data: {source}", path.display())]
    Directory {
        /// The directory that was asked for.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The port is not free, or may not be used.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port that was asked for.
        port: u16,
        /// What the system answered.
        source: io::Error,
    },
    /// The file cannot be opened, or is not a broker's.
    #[error("the broker's file {} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A defect has ended the writer of the log.
    #[error(
        "the writer of the broker's log has ended; the process ends so that it can be started again"
    )]
    WriterEnded,
}

/// A broker that has its port and its file.
#[derive(Debug)]
pub struct OpenBroker {
    listener: TcpListener,
    broker: Arc<Broker>,
    writer_ended: tokio::sync::oneshot::Receiver<()>,
    cleaning_interval: Duration,
}

/// Opens a broker; [`OpenBroker::serve`] runs it. Must be called in a runtime of tokio.
///
/// # Errors
/// [`BrokerError`] when the directory, the port or the file cannot be used.
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
    // A new file's name has to be made durable, too: its directory is synced. Not every file system can.
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
    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.broker.port
    }

    /// Serves until `stop` is cancelled. Everything acknowledged is on disk before that.
    ///
    /// # Errors
    /// [`BrokerError::WriterEnded`] after a defect: a process that ends is started again and recovers.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), BrokerError> {
        let Self {
            listener,
            broker,
            writer_ended,
            cleaning_interval,
        } = self;
        let cleaning = stop.child_token();
        let cleaner = clean(Arc::clone(&broker), cleaning_interval, cleaning.clone());
        // On a thread of its own: compaction reads much at once.
        let runtime = tokio::runtime::Handle::current();
        let cleaner = tokio::task::spawn_blocking(move || runtime.block_on(cleaner));
        let outcome = tokio::select! {
            () = server::serve(listener, broker) => Ok(()),
            _ = writer_ended => Err(BrokerError::WriterEnded),
            () = stop.cancelled() => Ok(()),
        };
        cleaning.cancel();
        // It holds the log, which closes when the last holder is gone.
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
