//! A host that supervises the tasks of a process. An operating system's process has none; where a simulation runs several processes on one thread,
//! the host ends the tasks of one of them and gives each task its own source of randomness.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::AbortHandle;

/// Watches over the tasks of one process.
pub trait TaskHost: Debug + Send + Sync + 'static {
    /// A task is about to begin: what is called at each of its polls.
    fn begin(&self) -> Box<dyn Polls>;

    /// It has begun, and is ended by this.
    fn begun(&self, task: AbortHandle);
}

/// Is told whenever one task runs.
pub trait Polls: Send + 'static {
    /// The task runs from here on.
    fn enter(&mut self);

    /// It waits, or is done.
    fn leave(&mut self);
}

/// A task of which its host is told.
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
