//! The dead letters of one service and the jobs on them. One job runs at a time, and continues when its caller
//! disconnects.

mod retry_in_order;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_event_path::{
    dead_letter_topic::DeadLetterTopic,
    log::Log,
    store::{DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId},
};
use tandem_runtime::shutdown::Shutdown;

use super::{
    retry::{Retry, RetryError},
    views::{JobView, Work},
};

/// Letters per round of a job.
const ROUND: usize = 500;

/// The dead letters of one service.
#[derive(Clone)]
pub struct DeadLetterOperations {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) letters: Arc<dyn DeadLetterStore>,
    retries: Vec<Arc<dyn Retry>>,
    log: Arc<dyn Log>,
    copies: DeadLetterTopic,
    pub(super) shutdown: Shutdown,
    /// The job that started last. Only one runs at a time, because two would process the same letters.
    job: Mutex<Option<JobView>>,
}

impl DeadLetterOperations {
    /// Operations on these letters. `retries` process them again.
    #[must_use]
    pub fn open(
        letters: Arc<dyn DeadLetterStore>,
        retries: Vec<Arc<dyn Retry>>,
        log: &Arc<dyn Log>,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                letters,
                retries,
                log: Arc::clone(log),
                copies: DeadLetterTopic::start(log, shutdown),
                shutdown: shutdown.clone(),
                job: Mutex::default(),
            }),
        }
    }

    pub(super) fn job(&self) -> MutexGuard<'_, Option<JobView>> {
        self.inner
            .job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut JobView)) {
        if let Some(job) = self.job().as_mut() {
            change(job);
        }
    }

    /// Starts a job that continues when its caller disconnects. Returns the job.
    ///
    /// # Errors
    /// The job that is already running.
    pub(super) fn begin(
        &self,
        work: Work,
        filter: DeadLetterFilter,
        total: u64,
    ) -> Result<JobView, Box<JobView>> {
        let begun = {
            let mut job = self.job();
            if let Some(running) = job.as_ref().filter(|job| job.is_running()) {
                return Err(Box::new(running.clone()));
            }
            job.insert(JobView {
                id: self.inner.shutdown.clock().new_id().to_string(),
                work,
                filter: filter.clone(),
                begun_at: self.inner.shutdown.clock().now().into(),
                ended_at: None,
                total,
                done: 0,
                refused_keys: 0,
                refused: Vec::new(),
                failed: None,
            })
            .clone()
        };
        let operations = self.clone();
        self.inner.shutdown.spawn(async move {
            let work = async {
                match work {
                    Work::Retry => operations.retry(&filter).await,
                    Work::Discard => operations.discard_those(&filter).await,
                }
            };
            let ended = tokio::select! {
                ended = work => ended,
                () = operations.inner.shutdown.requested() => Err(RetryError::Stopping),
            };
            operations.note(|job| {
                job.ended_at = Some(operations.inner.shutdown.clock().now().into());
                job.failed = ended.err().map(|error| error.to_string());
                tracing::info!(work = ?job.work, done = job.done, refused = job.refused_keys, failed = ?job.failed, "work on dead letters has ended");
            });
        });
        Ok(begun)
    }

    /// Discards all letters that match the filter, without processing them.
    async fn discard_those(&self, filter: &DeadLetterFilter) -> Result<(), RetryError> {
        loop {
            let page = self.inner.letters.dead_letters(filter, None, ROUND).await?;
            if page.is_empty() {
                return Ok(());
            }
            for letter in page {
                self.close(&letter, "discarded").await?;
                self.note(|job| job.done += 1);
            }
        }
    }

    /// Removes one letter without processing it. Returns whether it existed.
    ///
    /// # Errors
    /// If the store or Kafka is unavailable.
    pub async fn discard(&self, id: &LetterId) -> Result<bool, RetryError> {
        let found = self.inner.letters.dead_letter(id).await?;
        match found {
            Some(letter) => {
                self.close(&letter, "discarded").await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Records the outcome in the dead letter topic, then removes the letter.
    async fn close(&self, letter: &DeadLetter, resolution: &str) -> Result<(), RetryError> {
        self.inner.copies.record(letter, resolution).await?;
        self.inner.letters.unpark(&letter.id()).await?;
        tracing::info!(
            resolution,
            consumer = letter.consumer,
            topic = letter.topic,
            partition = letter.partition,
            offset = letter.offset,
            key = letter.key,
            "dead letter closed"
        );
        Ok(())
    }
}
