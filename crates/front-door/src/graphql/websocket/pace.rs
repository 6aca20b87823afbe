//! How fast messages of one connection are read.

use std::time::Duration;

use tokio::time::Instant;

/// How fast messages of one connection are read, whatever they say: to refuse them takes time, too.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    pub(super) messages: usize,
}

impl Pace {
    /// So many messages of a connection are taken in such a time.
    const MOST: usize = 500;
    const TIME: Duration = Duration::from_millis(100);

    pub(super) fn of(begun: Instant) -> Self {
        Self { begun, messages: 0 }
    }

    /// One more, which came now; answers how long it waits if the ones before it came too fast.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.begun);
        if passed >= Self::TIME {
            *self = Self::of(now);
        }
        self.messages += 1;
        (self.messages > Self::MOST).then(|| Self::TIME.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_come_faster_than_they_are_read_wait_and_those_after_a_pause_do_not() {
        let begun = Instant::now();
        let mut pace = Pace::of(begun);
        for _ in 0..Pace::MOST {
            assert_eq!(pace.wait(begun), None);
        }
        let later = begun + Pace::TIME / 4;
        assert_eq!(pace.wait(later), Some(Pace::TIME * 3 / 4));
        for _ in 0..Pace::MOST {
            assert_eq!(pace.wait(begun + Pace::TIME), None);
        }
        assert!(pace.wait(begun + Pace::TIME).is_some());
    }
}
