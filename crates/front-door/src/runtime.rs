//! Where tasks run: on any thread of the runtime, or on the calling thread, for a service that cannot leave it.

use std::future::Future;

use tokio::task::JoinHandle;

/// How tasks are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tasks {
    /// On any thread of the runtime.
    Shared,
    /// On this thread, inside a `LocalSet`.
    Local,
}

impl Tasks {
    pub(crate) fn start<F>(self, future: F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Task(Some(match self {
            Self::Shared => tokio::spawn(future),
            Self::Local => tokio::task::spawn_local(future),
        }))
    }
}

/// A task that is aborted when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(Option<JoinHandle<()>>);

impl Task {
    /// Lets the task continue on its own.
    pub(crate) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
