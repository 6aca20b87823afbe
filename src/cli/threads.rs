//! How many worker threads a process has.

use std::{io, thread::available_parallelism};

use tokio::runtime::{Builder, Runtime};

/// The environment variable of [`ThreadSettings::worker_threads`].
pub(super) const WORKER_THREADS_ENV: &str = "TANDEM_WORKER_THREADS";

/// How many threads carry a process's work.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Threads")]
pub(super) struct ThreadSettings {
    /// Threads that carry the work of the broker and of each service; half of the processors unless set, one at least.
    #[arg(
        long,
        env = WORKER_THREADS_ENV,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u16).range(1..=1_024),
        global = true
    )]
    pub(super) worker_threads: Option<u16>,
}

impl ThreadSettings {
    /// A runtime with this many worker threads.
    ///
    /// The default is half of the processors, because no service has a machine to itself. The client libraries have
    /// their own threads, and the database, the broker and the other services need processors too. On two processors,
    /// creating a customer costs accounts a tenth less with one thread than with two, which wake each other and free
    /// each other's memory.
    ///
    /// # Errors
    /// When the operating system cannot create the threads.
    pub(super) fn runtime(self) -> io::Result<Runtime> {
        let half = || available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1));
        let threads = self.worker_threads.map_or_else(half, usize::from);
        Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn workers(worker_threads: Option<u16>) -> usize {
        let runtime = ThreadSettings { worker_threads }.runtime().unwrap();
        runtime.metrics().num_workers()
    }

    #[test]
    fn a_process_has_the_threads_that_it_is_told_to() {
        assert_eq!(workers(Some(1)), 1);
        assert_eq!(workers(Some(7)), 7);
    }

    #[test]
    fn a_process_that_is_not_told_leaves_half_of_the_processors_to_others() {
        let processors = available_parallelism().unwrap().get();
        assert_eq!(workers(None), (processors / 2).max(1));
    }
}
