//! Turns: limits how many tasks of one client run at once. Further ones wait only for that client's own tasks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admission::Client;

/// The turns of all clients.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    at_once: usize,
    /// The most tasks of one client that have a turn or wait for one.
    most: usize,
    of_client: Mutex<HashMap<Client, Queue>>,
}

#[derive(Debug)]
struct Queue {
    turns: Arc<Semaphore>,
    tasks: usize,
}

/// A place in the queue of a client, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    client: Client,
    turns: Arc<Semaphore>,
}

/// A task's turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    // Fields drop in order: the permit is released before the queue may be removed.
    _permit: Option<OwnedSemaphorePermit>,
    _place: Place,
}

impl Turns {
    /// `at_once` tasks of a client have a turn, and `waiting` more may wait.
    pub(crate) fn new(at_once: usize, waiting: usize) -> Self {
        Self(Arc::new(Shared {
            at_once,
            most: at_once.saturating_add(waiting),
            of_client: Mutex::default(),
        }))
    }

    /// Reserves a place for one more task of this client, unless too many wait already.
    pub(crate) fn join(&self, client: Client) -> Option<Place> {
        let mut of_client = self.0.lock();
        let queue = of_client.entry(client).or_insert_with(|| Queue {
            turns: Arc::new(Semaphore::new(self.0.at_once)),
            tasks: 0,
        });
        if queue.tasks >= self.0.most {
            return None;
        }
        queue.tasks += 1;
        Some(Place {
            shared: Arc::clone(&self.0),
            client,
            turns: Arc::clone(&queue.turns),
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Client, Queue>> {
        self.of_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn, after the client's earlier tasks.
    pub(crate) async fn turn(self) -> Turn {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        Turn {
            _permit: permit,
            _place: self,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_client = self.shared.lock();
        if let Some(queue) = of_client.get_mut(&self.client) {
            queue.tasks -= 1;
            if queue.tasks == 0 {
                of_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn tasks_of_a_client_wait_for_each_other_and_those_of_others_pass() {
        let turns = Turns::new(2, usize::MAX);
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let now = |client| turns.join(client).unwrap().turn().now_or_never();
        let first = now(one).unwrap();
        let _second = now(one).unwrap();
        let mut third = Box::pin(turns.join(one).unwrap().turn());
        assert!((&mut third).now_or_never().is_none());
        assert!(now(other).is_some());
        drop(first);
        assert!((&mut third).now_or_never().is_some());
    }

    #[test]
    fn so_many_of_a_client_wait_and_what_ends_or_is_given_up_makes_room() {
        let turns = Turns::new(1, 1);
        let one = client("10.0.0.1");
        let first = turns.join(one).unwrap().turn().now_or_never().unwrap();
        let waiting = turns.join(one).unwrap();
        assert!(turns.join(one).is_none());
        assert!(turns.join(client("10.0.0.2")).is_some());
        drop(waiting);
        let waiting = turns.join(one).unwrap();
        drop(first);
        assert!(waiting.turn().now_or_never().is_some());
        assert!(turns.0.lock().is_empty());
    }
}
