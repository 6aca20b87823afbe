//! Runs long computations on a separate thread of lower priority, so that the threads that serve requests stay free.
//!
//! It runs one task of a client at a time. The tasks of one client wait for each other, and clients that ask for little
//! are served meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{OnceLock, mpsc};

use tokio::sync::oneshot;

use super::admission::Client;
use super::turns::Turns;

/// The most tasks of one client that wait.
const WAITING: usize = 256;
/// The niceness of the thread: how much it yields to others when both want a processor (nice, POSIX).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// A thread for long computations. It starts with the first task and ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    turns: Turns,
    /// `None` if no thread could be started.
    thread: OnceLock<Option<mpsc::Sender<Work>>>,
}

/// Why a task was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDone {
    #[error(
        "what takes long is done one after the other for each client, and too much of it waits: send less of it at once"
    )]
    TooMuch,
    #[error("it could not be worked out")]
    Failed,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            turns: Turns::new(1, WAITING),
            thread: OnceLock::new(),
        }
    }
}

impl Aside {
    /// Runs a task when it is the client's turn.
    ///
    /// # Errors
    /// When too many tasks of this client wait already, or the task panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        client: Client,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let place = self.turns.join(client).ok_or(NotDone::TooMuch)?;
        let turn = place.turn().await;
        let (done, result) = oneshot::channel();
        let work = move || {
            // The caller may have gone.
            if !done.is_closed() {
                let _ = done.send(work());
            }
            drop(turn);
        };
        match self.thread.get_or_init(start) {
            Some(thread) => thread.send(Box::new(work)).map_err(|_| NotDone::Failed)?,
            None => work(),
        }
        result.await.map_err(|_| NotDone::Failed)
    }
}

fn start() -> Option<mpsc::Sender<Work>> {
    // The channel is bounded by the turns: it holds one task of each client.
    let (sender, works) = mpsc::channel::<Work>();
    let thread = std::thread::Builder::new()
        .name("aside".to_owned())
        .spawn(move || {
            give_way();
            for work in works {
                // The caller notices a panic because the task drops its sender.
                let _ = catch_unwind(AssertUnwindSafe(work));
            }
        });
    match thread {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(%error, "there is no thread for what takes long: it is done by those that serve");
            None
        }
    }
}

/// Only Linux sets the niceness of a single thread. Elsewhere it would apply to the whole process.
#[cfg(target_os = "linux")]
fn give_way() {
    // Best effort: without it the thread competes equally with the others.
    let _ = rustix::process::nice(NICENESS);
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[tokio::test]
    async fn what_takes_long_of_one_client_waits_for_its_own_and_not_for_what_others_wait_for() {
        let aside = Aside::default();
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let (go_on, waits) = mpsc::channel::<()>();
        let mut held = Box::pin(aside.run(one, move || waits.recv().unwrap()));
        assert!((&mut held).now_or_never().is_none());
        let mut of_one: Vec<_> = (0..WAITING)
            .map(|number| Box::pin(aside.run(one, move || number)))
            .collect();
        for run in &mut of_one {
            assert!(run.now_or_never().is_none());
        }
        assert_eq!(aside.run(one, || ()).await, Err(NotDone::TooMuch));
        // The other client's task is next, ahead of all those.
        let mut of_other = Box::pin(aside.run(other, || "other"));
        assert!((&mut of_other).now_or_never().is_none());
        go_on.send(()).unwrap();
        held.await.unwrap();
        assert_eq!(of_other.await, Ok("other"));
        for (number, run) in of_one.into_iter().enumerate() {
            assert_eq!(run.await, Ok(number));
        }
    }

    #[tokio::test]
    async fn what_panics_fails_by_itself() {
        let aside = Aside::default();
        let one = client("10.0.0.1");
        let failed: Result<(), _> = aside.run(one, || panic!("as it is meant to")).await;
        assert_eq!(failed, Err(NotDone::Failed));
        assert_eq!(aside.run(one, || 7).await, Ok(7));
    }
}
