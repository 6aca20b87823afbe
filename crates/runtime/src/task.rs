//! A host that supervises the tasks of a process. A real process has none. In a simulation, which runs several
//! processes on one thread, the host ends the tasks of one process and gives each task its own source of randomness.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::AbortHandle;

/// Supervises the tasks of one process.
pub trait TaskHost: Debug + Send + Sync + 'static {
    /// Called before a task begins. The result is called at each poll of the task.
    fn begin(&self) -> Box<dyn Polls>;

    /// Called after a task began. The handle ends the task.
    fn begun(&self, task: AbortHandle);
}

/// Notified whenever one task runs.
pub trait Polls: Send + 'static {
    /// The task starts to run.
    fn enter(&mut self);

    /// The task waits, or has finished.
    fn leave(&mut self);
}

/// A task that notifies its host.
pub(crate) struct Hosted<F> {
    task: Pin<Box<F>>,
    polls: Box<dyn Polls>,
}

impl<F> Hosted<F> {
    pub(crate) fn new(task: F, host: &dyn TaskHost) -> Self {
        Self {
            task: Box::pin(task),
            polls: host.begin(),
        }
    }
}

impl<F: Future> Future for Hosted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.enter();
        let polled = self.task.as_mut().poll(context);
        self.polls.leave();
        polled
    }
}
