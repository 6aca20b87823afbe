//! The heartbeat of a subscription: an item that is sent when nothing else was sent for a while.

use std::{
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tandem_runtime::clock::{Clock, Sleep};
use tokio::time::Instant;

/// The heartbeat of one subscription, if it wants one.
pub(super) struct Beat {
    every: Option<Duration>,
    last: Instant,
    /// Ends when the next heartbeat is due, as seen when the timer was created. It keeps running while items are sent,
    /// and a new timer is created only when it ends. A change may be for ten thousand subscribers, and each new timer
    /// would take the global timer lock twice.
    timer: Mutex<Option<Sleep>>,
}

impl Beat {
    pub(super) fn new(every: Option<Duration>, clock: &Clock) -> Self {
        Self {
            every,
            last: clock.instant(),
            timer: Mutex::default(),
        }
    }

    /// Records that an item was sent. The next heartbeat is due a whole interval later.
    pub(super) fn sent(&mut self, clock: &Clock) {
        if self.every.is_some() {
            self.last = clock.instant();
        }
    }

    /// Does work until it is done. If a heartbeat is due first, it drops the work and returns `None`. Its future holds
    /// the work twice, so pass a pinned future if the wait may be long.
    pub(super) async fn before_due<T>(
        &self,
        clock: &Clock,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(every) = self.every else {
            return Some(work.await);
        };
        let due = self.last + every;
        let mut work = pin!(work);
        let mut timer = self.running();
        loop {
            let until = timer.get_or_insert_with(|| clock.sleep_until(due));
            tokio::select! {
                biased;
                done = work.as_mut() => {
                    self.keep(timer);
                    return Some(done);
                }
                () = until => timer = None,
            }
            if clock.instant() >= due {
                return None;
            }
        }
    }

    fn running(&self) -> Option<Sleep> {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        timer.take()
    }

    fn keep(&self, running: Option<Sleep>) {
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tandem_runtime::clock::{SystemTimeSource, TimeSource};

    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    /// A clock that counts timers.
    #[derive(Clone, Debug, Default)]
    struct Counting(Arc<AtomicUsize>);

    impl TimeSource for Counting {
        fn now(&self) -> std::time::SystemTime {
            SystemTimeSource.now()
        }

        fn instant(&self) -> Instant {
            SystemTimeSource.instant()
        }

        fn sleep_until(&self, moment: Instant) -> Sleep {
            self.0.fetch_add(1, Ordering::Relaxed);
            SystemTimeSource.sleep_until(moment)
        }

        fn random(&self) -> u128 {
            SystemTimeSource.random()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn items_begin_no_timer_each_and_the_heartbeat_comes_a_whole_interval_behind_the_last() {
        let source = Counting::default();
        let clock = Clock::new(source.clone());
        let mut beat = Beat::new(Some(EVERY), &clock);
        for _ in 0..100 {
            let item = beat.before_due(&clock, tokio::task::yield_now()).await;
            assert_eq!(item, Some(()));
            beat.sent(&clock);
        }
        assert_eq!(source.0.load(Ordering::Relaxed), 1);
        tokio::time::advance(EVERY / 2).await;
        beat.sent(&clock);
        let begun = clock.instant();
        let none = beat.before_due(&clock, std::future::pending::<()>()).await;
        assert_eq!((none, clock.since(begun)), (None, EVERY));
        assert_eq!(source.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_wants_no_heartbeats_begins_no_timer() {
        let source = Counting::default();
        let clock = Clock::new(source.clone());
        let beat = Beat::new(None, &clock);
        assert_eq!(beat.before_due(&clock, async { 7 }).await, Some(7));
        assert_eq!(source.0.load(Ordering::Relaxed), 0);
    }
}
