//! The nodes of one backend: which are up, and what is done to each.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;
use crate::server::Server;

/// Longest wait for one answer to one question.
pub(crate) const ASK_LIMIT: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(50);

/// What a test does to one node of a backend that keeps its [`Nodes`] in `nodes`.
macro_rules! each_node {
    () => {
        /// The process of a node.
        ///
        /// # Errors
        /// When the node is down.
        pub fn process_id(&self, node: usize) -> Result<u32, Error> {
            self.nodes.process_id(node)
        }

        /// Kills a node (SIGKILL) and waits until it is gone. A node that is down stays so.
        ///
        /// # Errors
        /// When there is no such node.
        pub fn kill(&self, node: usize) -> Result<(), Error> {
            self.nodes.kill(node)
        }

        /// Asks a node to end (SIGTERM) and waits until it is gone, at most 20 s; then it is killed.
        ///
        /// # Errors
        /// When there is no such node, or the signal is refused.
        pub fn stop(&self, node: usize) -> Result<(), Error> {
            self.nodes.stop(node)
        }

        /// Stops a node in its tracks (SIGSTOP): its connections stay open and nothing is answered.
        ///
        /// # Errors
        /// When the node is down.
        pub fn pause(&self, node: usize) -> Result<(), Error> {
            self.nodes.pause(node)
        }

        /// Lets a paused node go on (SIGCONT).
        ///
        /// # Errors
        /// When the node is down.
        pub fn resume(&self, node: usize) -> Result<(), Error> {
            self.nodes.resume(node)
        }
    };
}
pub(crate) use each_node;

/// One place per node; an empty place is a node that is down.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Mutex<Option<Server>>>);

impl Nodes {
    /// Places for 1 or 3 nodes, all down.
    pub(crate) fn new(count: usize) -> Result<Self, Error> {
        match count {
            1 | 3 => Ok(Self((0..count).map(|_| Mutex::new(None)).collect())),
            _ => Err(Error::Nodes(count)),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn put(&self, node: usize, server: Server) -> Result<(), Error> {
        *self.place(node)? = Some(server);
        Ok(())
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.place(node).is_ok_and(|server| server.is_some())
    }

    pub(crate) fn must_be_down(&self, node: usize) -> Result<(), Error> {
        if self.place(node)?.is_some() {
            return Err(Error::Node {
                node,
                reason: "runs already",
            });
        }
        Ok(())
    }

    /// SIGKILL, and the wait for the end.
    pub(crate) fn kill(&self, node: usize) -> Result<(), Error> {
        drop(self.place(node)?.take());
        Ok(())
    }

    /// SIGTERM, and the wait for the end.
    pub(crate) fn stop(&self, node: usize) -> Result<(), Error> {
        let server = self.place(node)?.take();
        server.map_or(Ok(()), Server::stop)
    }

    pub(crate) fn pause(&self, node: usize) -> Result<(), Error> {
        self.of_running(node, Server::pause)?
    }

    pub(crate) fn resume(&self, node: usize) -> Result<(), Error> {
        self.of_running(node, Server::resume)?
    }

    pub(crate) fn process_id(&self, node: usize) -> Result<u32, Error> {
        self.of_running(node, Server::id)
    }

    fn of_running<T>(&self, node: usize, ask: impl FnOnce(&Server) -> T) -> Result<T, Error> {
        let place = self.place(node)?;
        let server = place.as_ref().ok_or(Error::Node {
            node,
            reason: "is down",
        })?;
        Ok(ask(server))
    }

    /// Asks until the answer is good, the node's process ends, or the limit is reached.
    pub(crate) async fn poll<T>(
        &self,
        node: usize,
        what: &str,
        limit: Duration,
        ask: impl AsyncFn() -> Result<T, String>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let reason = match tokio::time::timeout(ASK_LIMIT * 4, ask()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(reason)) => reason,
                Err(_) => "no answer".to_owned(),
            };
            let ended = self.place(node)?.as_mut().is_some_and(Server::has_ended);
            if ended || Instant::now() >= deadline {
                let log = self
                    .place(node)?
                    .as_ref()
                    .map(Server::log_tail)
                    .unwrap_or_default();
                let reason = if ended {
                    "the process ended".to_owned()
                } else {
                    reason
                };
                return Err(Error::NotReady {
                    what: what.to_owned(),
                    limit,
                    reason,
                    log,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn place(&self, node: usize) -> Result<MutexGuard<'_, Option<Server>>, Error> {
        let place = self.0.get(node).ok_or(Error::Node {
            node,
            reason: "does not exist",
        })?;
        Ok(place.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
