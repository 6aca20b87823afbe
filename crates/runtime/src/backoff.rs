//! Pauses between retries. Each pause is up to twice as long as the previous one, up to a maximum, with jitter, so that
//! clients that failed together do not retry together.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::clock::Clock;

/// The range of the pauses. With jitter, each pause is at least half of its nominal length, and less than all of it.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The pauses of one series of attempts.
    #[must_use]
    pub fn pauses(self, clock: &Clock) -> Pauses {
        Pauses {
            backoff: self,
            clock: clock.clone(),
            series: self.series(clock),
        }
    }

    fn series(self, clock: &Clock) -> ExponentialBackoff {
        // backon adds jitter of up to the same length again, hence the halves.
        #[allow(clippy::cast_possible_truncation)]
        ExponentialBuilder::new()
            .with_min_delay(self.first / 2)
            .with_max_delay(self.longest / 2)
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(clock.random() as u64)
            .build()
    }
}

/// A series of pauses.
#[derive(Debug)]
pub struct Pauses {
    backoff: Backoff,
    clock: Clock,
    series: ExponentialBackoff,
}

impl Pauses {
    /// The next pause.
    #[must_use]
    pub fn next_pause(&mut self) -> Duration {
        self.series.next().unwrap_or(self.backoff.longest)
    }

    /// Starts again with the first pause, after a success.
    pub fn reset(&mut self) {
        self.series = self.backoff.series(&self.clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_again_after_a_success() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut pauses = Backoff::new(first, longest).pauses(&Clock::default());
        let begun = pauses.next_pause();
        assert!(begun >= first / 2 && begun <= first, "{begun:?}");
        for _ in 0..20 {
            let _ = pauses.next_pause();
        }
        let late = pauses.next_pause();
        assert!(late >= longest / 2 && late <= longest, "{late:?}");
        pauses.reset();
        assert!(pauses.next_pause() <= first);
    }
}
