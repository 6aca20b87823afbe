//! What a reader cannot read, and since when. A client retries by itself. An error that lasts has to be reported
//! nevertheless, because the records behind it wait as long.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tandem_runtime::clock::{Clock, Instant};

/// An error lasts if it has gone on for this long. It is over if it has not been repeated for this long.
const LASTING: Duration = Duration::from_secs(10);

/// How often a client reports an error that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// At every try.
    EachTime,
    /// Once. The error is over when something is read again.
    Once,
}

/// What a reader cannot read. Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct ReadErrors {
    clock: Clock,
    series: Arc<Mutex<Option<Series>>>,
}

/// A series of errors. Each came soon after the one before.
#[derive(Clone, Debug)]
struct Series {
    reason: String,
    told: Told,
    first: Instant,
    last: Instant,
}

impl Series {
    fn goes_on(&self, now: Instant) -> bool {
        self.told == Told::Once || now.saturating_duration_since(self.last) < LASTING
    }
}

impl ReadErrors {
    /// A state without errors.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            series: Arc::default(),
        }
    }

    fn series(&self) -> MutexGuard<'_, Option<Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something could not be read. `reason` is a sentence that says what and why.
    pub fn failed(&self, reason: String, told: Told) {
        let now = self.clock.instant();
        let mut series = self.series();
        let first = series
            .as_ref()
            .filter(|series| series.goes_on(now))
            .map_or(now, |series| series.first);
        *series = Some(Series {
            reason,
            told,
            first,
            last: now,
        });
    }

    /// Notes that something was read. That ends only an error that is reported once, because the error may be in
    /// another partition.
    pub fn arrived(&self) {
        let mut series = self.series();
        if series
            .as_ref()
            .is_some_and(|series| series.told == Told::Once)
        {
            *series = None;
        }
    }

    /// Forgets all errors, because the reader starts to read something else.
    pub fn forget(&self) {
        *self.series() = None;
    }

    /// The reason of an error that lasts, if there is one.
    #[must_use]
    pub fn lasting(&self) -> Option<String> {
        self.lasting_for(LASTING)
    }

    fn lasting_for(&self, limit: Duration) -> Option<String> {
        let now = self.clock.instant();
        let series = self.series();
        let lasting = series.as_ref().filter(|series| {
            series.goes_on(now) && now.saturating_duration_since(series.first) >= limit
        });
        lasting.map(|series| series.reason.clone())
    }

    /// Waits until the present error has gone on for `limit`, and returns its reason. Never returns if there is no
    /// error now, or if it ends before.
    pub async fn until_lasting(&self, limit: Duration) -> String {
        let first = self.series().as_ref().map(|series| series.first);
        if let Some(first) = first {
            self.clock.sleep_until(first + limit).await;
            if let Some(reason) = self.lasting_for(limit) {
                return reason;
            }
        }
        pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn errors() -> (ReadErrors, Clock) {
        let clock = Clock::default();
        (ReadErrors::new(&clock), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_comes_again_and_again_lasts_though_other_partitions_are_read() {
        let (errors, clock) = errors();
        for _ in 0..9 {
            errors.failed("a batch cannot be read".to_owned(), Told::EachTime);
            errors.arrived();
            clock.sleep(SECOND).await;
            assert_eq!(errors.lasting(), None);
        }
        errors.failed("a batch cannot be read".to_owned(), Told::EachTime);
        let reason = errors.until_lasting(LASTING).await;
        assert_eq!(reason, "a batch cannot be read");
        assert!(errors.lasting().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_does_not_come_again_is_over() {
        let (errors, clock) = errors();
        errors.failed("a batch cannot be read".to_owned(), Told::EachTime);
        clock.sleep(LASTING).await;
        assert_eq!(errors.lasting(), None);
        errors.failed("a batch cannot be read".to_owned(), Told::EachTime);
        clock.sleep(SECOND).await;
        assert_eq!(errors.lasting(), None, "it is a new one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_once_lasts_until_something_is_read() {
        let (errors, clock) = errors();
        errors.failed("this user may not read it".to_owned(), Told::Once);
        clock.sleep(6 * LASTING).await;
        assert!(errors.lasting().is_some());
        errors.arrived();
        assert_eq!(errors.lasting(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forgotten_is_not_waited_for() {
        let (errors, clock) = errors();
        errors.failed("a batch cannot be read".to_owned(), Told::Once);
        errors.forget();
        let waited = clock
            .timeout(6 * LASTING, errors.until_lasting(LASTING))
            .await;
        assert!(waited.is_err());
    }
}
