//! Limits how fast the messages of one connection are read.

use std::time::Duration;

use tokio::time::Instant;

/// Limits how fast the messages of one connection are read, whatever they contain: even refusing them takes time.
#[derive(Debug)]
pub(super) struct MessageRate {
    begun: Instant,
    pub(super) messages: usize,
    /// The sum of the weights of the messages in this interval.
    worth: usize,
}

impl MessageRate {
    /// This many messages of a connection are accepted in one interval of `TIME`.
    const MOST: usize = 500;
    const TIME: Duration = Duration::from_millis(100);
    /// The weight of a message that is answered at once, such as a ping or a refused one. Its answer is a write of its
    /// own, and no honest client sends five hundred of those a second on a connection.
    const ANSWERED: usize = 10;

    pub(super) fn of(begun: Instant) -> Self {
        Self {
            begun,
            messages: 0,
            worth: 0,
        }
    }

    /// Counts a message that came now. Returns how long it must wait if the ones before it came too fast.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.begun);
        if passed >= Self::TIME {
            *self = Self::of(now);
        }
        self.messages += 1;
        self.worth += 1;
        (self.worth > Self::MOST).then(|| Self::TIME.saturating_sub(passed))
    }

    /// The last message was answered at once.
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
