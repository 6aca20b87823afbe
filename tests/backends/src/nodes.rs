//! The nodes of one backend: which are up, and the failures that a test causes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;
use crate::server::Server;

/// Time limit for one request.
pub(crate) const ASK_LIMIT: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(50);

/// The methods on one node, for a backend that keeps its [`Nodes`] in the field `nodes`.
macro_rules! each_node {
    () => {
        /// The process of a node.
        ///
        /// # Errors
        /// When the node is down.
        pub fn process_id(&self, node: usize) -> Result<u32, Error> {
            self.nodes.process_id(node)
        }

        /// Kills a node (SIGKILL) and waits until it has ended. Does nothing if the node is down.
        ///
        /// # Errors
        /// When there is no such node.
        pub fn kill(&self, node: usize) -> Result<(), Error> {
            self.nodes.kill(node)
        }

        /// Stops a node (SIGTERM) and waits until it has ended, for at most 20 s. Then kills it.
        ///
        /// # Errors
        /// When there is no such node, or the signal is refused.
        pub fn stop(&self, node: usize) -> Result<(), Error> {
            self.nodes.stop(node)
        }

        /// Pauses a node (SIGSTOP): its connections stay open, but it answers nothing.
        ///
        /// # Errors
        /// When the node is down.
        pub fn pause(&self, node: usize) -> Result<(), Error> {
            self.nodes.pause(node)
        }

        /// Resumes a paused node (SIGCONT).
        ///
        /// # Errors
        /// When the node is down.
        pub fn resume(&self, node: usize) -> Result<(), Error> {
            self.nodes.resume(node)
        }
    };
}
pub(crate) use each_node;

/// One slot per node. An empty slot is a node that is down.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<Mutex<Option<Server>>>);

impl Nodes {
    /// Slots for 1 or 3 nodes, all down.
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

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&self, node: usize) -> Result<(), Error> {
        drop(self.place(node)?.take());
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
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

    /// Polls until the answer is good, the node's process ends, or the limit is reached.
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
