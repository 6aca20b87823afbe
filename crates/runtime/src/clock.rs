//! The clock of a process: the time of day, durations, waits, new ids and random numbers. All code that decides by any
//! of these takes it from here, so that a test can control time and randomness.

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

pub use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::wrong_clock;

/// A wait.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The source of time and randomness.
pub trait TimeSource: Debug + Send + Sync + 'static {
    /// The time of day. It may jump backwards or forwards.
    fn now(&self) -> SystemTime;

    /// A monotonic instant.
    fn instant(&self) -> Instant;

    /// Waits until an instant.
    fn sleep_until(&self, moment: Instant) -> Sleep;

    /// 128 random bits, good enough for cryptographic keys.
    fn random(&self) -> u128;
}

/// Time and randomness of the operating system. Under tokio's paused clock, instants and waits are virtual.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemTimeSource;

#[expect(clippy::disallowed_methods, reason = "this is what owns them")]
impl TimeSource for SystemTimeSource {
    fn now(&self) -> SystemTime {
        wrong_clock::set_wrong(SystemTime::now())
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, moment: Instant) -> Sleep {
        Box::pin(tokio::time::sleep_until(moment))
    }

    fn random(&self) -> u128 {
        rand::random()
    }
}

/// The time limit of an operation was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done within {} ms", .0.as_millis())]
pub struct Elapsed(pub Duration);

/// The clock of a process. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Box<dyn TimeSource>,
    /// The newest id: milliseconds since 1970, and the counter within that millisecond.
    newest_id: Mutex<(u64, u16)>,
}

/// Width of the counter for ids within one millisecond: `rand_a` of RFC 9562, section 5.7 (method 1 of section 6.2).
const COUNTER_BITS: u32 = 12;

impl Default for Clock {
    fn default() -> Self {
        Self::new(SystemTimeSource)
    }
}

impl Clock {
    /// A clock that uses this source.
    #[must_use]
    pub fn new(source: impl TimeSource) -> Self {
        Self(Arc::new(Inner {
            source: Box::new(source),
            newest_id: Mutex::default(),
        }))
    }

    /// The time of day. It may jump backwards or forwards.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.0.source.now()
    }

    /// A monotonic instant, for measuring and waiting.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.0.source.instant()
    }

    /// The time that has passed since an instant.
    #[must_use]
    pub fn since(&self, moment: Instant) -> Duration {
        self.instant().saturating_duration_since(moment)
    }

    /// Waits until an instant.
    pub fn sleep_until(&self, moment: Instant) -> Sleep {
        self.0.source.sleep_until(moment)
    }

    /// Waits for this long.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.instant() + duration)
    }

    /// Runs `work` with a time limit.
    ///
    /// # Errors
    /// When the limit is exceeded. The work is dropped then.
    pub async fn timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(limit) => Err(Elapsed(limit)),
        }
    }

    /// 128 random bits, good enough for cryptographic keys.
    #[must_use]
    pub fn random(&self) -> u128 {
        self.0.source.random()
    }

    /// A new id: a version 7 UUID, greater than every earlier id of this clock.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        let now = self.now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let random = self.random().to_be_bytes();
        let (millis, counter) = {
            let mut newest = self
                .0
                .newest_id
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *newest = match *newest {
                (millis, _) if millis < now => (now, u16::from(random[0])),
                (millis, counter) if u32::from(counter) + 1 < 1 << COUNTER_BITS => {
                    (millis, counter + 1)
                }
                (millis, _) => (millis + 1, 0),
            };
            *newest
        };
        let mut rest = [0; 10];
        rest[..2].copy_from_slice(&counter.to_be_bytes());
        rest[2..].copy_from_slice(&random[8..]);
        Builder::from_unix_timestamp_millis(millis, &rest).into_uuid()
    }

    /// A random duration between one half of this one and all of it.
    #[must_use]
    pub fn jittered(&self, duration: Duration) -> Duration {
        // 53 bits, which is the precision of an f64.
        #[allow(clippy::cast_precision_loss)]
        let part = (self.random() >> 75) as f64 / (1_u64 << 53) as f64;
        duration.mul_f64(0.5 + part / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Chance(u128);

    impl TimeSource for Chance {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn instant(&self) -> Instant {
            SystemTimeSource.instant()
        }

        fn sleep_until(&self, moment: Instant) -> Sleep {
            SystemTimeSource.sleep_until(moment)
        }

        fn random(&self) -> u128 {
            self.0
        }
    }

    #[test]
    fn a_jittered_duration_is_between_half_and_the_whole() {
        let whole = Duration::from_secs(10);
        assert_eq!(Clock::new(Chance(0)).jittered(whole), whole / 2);
        let most = Clock::new(Chance(u128::MAX)).jittered(whole);
        assert!(most > Duration::from_secs(9) && most <= whole, "{most:?}");
    }

    #[test]
    fn ids_grow_also_within_a_millisecond_and_when_the_clock_stands_still() {
        let clock = Clock::new(Chance(7));
        let ids: Vec<Uuid> = (0..10_000).map(|_| clock.new_id()).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
        assert_eq!(ids[0].get_version_num(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_is_given_up() {
        let clock = Clock::default();
        let limit = Duration::from_secs(3);
        let begun = clock.instant();
        let never = std::future::pending::<()>();
        assert_eq!(clock.timeout(limit, never).await, Err(Elapsed(limit)));
        assert_eq!(clock.since(begun), limit);
        assert_eq!(clock.timeout(limit, async { 7 }).await, Ok(7));
    }
}
