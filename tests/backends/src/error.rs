//! Errors of starting, calling or breaking a backend.

use std::path::PathBuf;
use std::time::Duration;

/// Why a backend did not do what the test wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server's files are not on this machine.
    #[error("no {0} on this machine; run tests/backends/install.sh")]
    NotInstalled(&'static str),
    /// The number of nodes is not one that the kit can start.
    #[error("a backend has 1 or 3 nodes, not {0}")]
    Nodes(usize),
    /// The node doesn't exist, or isn't in the state that the call needs.
    #[error("node {node}: {reason}")]
    Node {
        /// Index of the node, from 0.
        node: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server ended or did not answer while the test waited for it.
    #[error("{what} not there after {limit:?}: {reason}\n{log}")]
    NotReady {
        /// What the test waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The last failure that was seen.
        reason: String,
        /// The end of the server's log.
        log: String,
    },
    /// A command-line tool of the backend failed.
    #[error("{tool} failed: {output}")]
    Tool {
        /// Name of the tool.
        tool: &'static str,
        /// What it printed.
        output: String,
    },
    /// No free port was found.
    #[error("no free loopback port between {from} and {to}")]
    NoPort {
        /// First port tried.
        from: u16,
        /// Last port tried.
        to: u16,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or process operation failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// MongoDB refused a command.
    #[error("MongoDB: {0}")]
    Mongo(#[from] mongodb::error::Error),
    /// Kafka refused a request.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
}
