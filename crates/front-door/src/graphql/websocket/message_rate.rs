//! How fast messages of one connection are read.

use std::time::Duration;

use tokio::time::Instant;

/// How fast messages of one connection are read, whatever they say: to refuse them takes time, too.
#[derive(Debug)]
pub(super) struct MessageRate {
    begun: Instant,
    pub(super) messages: usize,
    /// What the messages of this time are worth.
    worth: usize,
}

impl MessageRate {
    /// So many messages of a connection are taken in such a time.
    const MOST: usize = 500;
    const TIME: Duration = Duration::from_millis(100);
    /// One that is answered at once, such as a ping or what is refused, is worth so many: its answer is a write of its own, and no honest client asks
    /// for five hundred a second of those on a connection.
    const ANSWERED: usize = 10;

    pub(super) fn of(begun: Instant) -> Self {
        Self {
            begun,
            messages: 0,
            worth: 0,
        }
    }

    /// One more, which came now; answers how long it waits if the ones before it came too fast.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.begun);
        if passed >= Self::TIME {
            *self = Self::of(now);
        }
        self.messages += 1;
        self.worth += 1;
        (self.worth > Self::MOST).then(|| Self::TIME.saturating_sub(passed))
    }

    /// The last one is answered at once.
    pub(super) fn answered(&mut self) {
        self.worth += Self::ANSWERED - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_come_faster_than_they_are_read_wait_and_those_after_a_pause_do_not() {
        let begun = Instant::now();
        let mut rate = MessageRate::of(begun);
        for _ in 0..MessageRate::MOST {
            assert_eq!(rate.wait(begun), None);
        }
        let later = begun + MessageRate::TIME / 4;
        assert_eq!(rate.wait(later), Some(MessageRate::TIME * 3 / 4));
        for _ in 0..MessageRate::MOST {
            assert_eq!(rate.wait(begun + MessageRate::TIME), None);
        }
        assert!(rate.wait(begun + MessageRate::TIME).is_some());
    }

    #[test]
    fn messages_that_are_answered_at_once_wait_ten_times_as_early() {
        let begun = Instant::now();
        let mut rate = MessageRate::of(begun);
        for _ in 0..MessageRate::MOST / MessageRate::ANSWERED {
            assert_eq!(rate.wait(begun), None);
            rate.answered();
        }
        assert_eq!(rate.wait(begun), Some(MessageRate::TIME));
        assert_eq!(rate.wait(begun + MessageRate::TIME), None);
    }
}
