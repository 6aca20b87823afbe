//! When to publish: a change alone goes out at once; when many come, they are gathered for a moment, so that they share
//! requests to Kafka and the writes of those who read them. (Network drivers do the same with interrupts.)

use std::time::Duration;

use tokio::time::Instant;

/// Changes are gathered when they come closer together, on the average of late, than so many times what publishing one takes.
/// So it fits machines and networks of any speed: the slower the way, the more there is to share on it.
const CLOSE: f64 = 2.5;
/// What publishing is taken to need until it is known.
const FIRST_GUESS: Duration = Duration::from_millis(2);
/// How long a round of gathering takes.
const ROUND: Duration = Duration::from_millis(15);
/// What takes longer than this counts as this long, so that a burst after a quiet time is noticed soon.
const LONGEST_GAP: Duration = Duration::from_millis(100);
/// How much of an average one observation leaves as it was.
const MEMORY: f64 = 0.9;

/// The pace of one relay.
#[derive(Debug)]
pub(super) struct Pace {
    arrived: Instant,
    /// Seconds between two arrivals, smoothed.
    gap: f64,
    /// Seconds from the sending of a change to Kafka's acknowledgement, smoothed.
    took: f64,
    /// When the last round was sent.
    sent: Option<Instant>,
}

impl Pace {
    /// The pace of a relay to which nothing came yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            arrived: now,
            gap: LONGEST_GAP.as_secs_f64(),
            took: FIRST_GUESS.as_secs_f64(),
            sent: None,
        }
    }

    /// So many changes came.
    pub(super) fn arrived(&mut self, count: usize, now: Instant) {
        let Ok(count @ 1..) = u16::try_from(count) else {
            return;
        };
        let since = (now - self.arrived).min(LONGEST_GAP).as_secs_f64();
        self.arrived = now;
        let kept = MEMORY.powi(i32::from(count));
        self.gap = smoothed(self.gap, since / f64::from(count), kept);
    }

    /// A change was published, so long after it was sent.
    pub(super) fn published(&mut self, took: Duration) {
        let took = took.min(LONGEST_GAP).as_secs_f64();
        self.took = smoothed(self.took, took, MEMORY);
    }

    /// Changes that come closer together than these seconds are gathered. A longer round would have nothing to gather.
    fn close(&self) -> f64 {
        (self.took * CLOSE).min(ROUND.as_secs_f64())
    }

    /// When what has come may be sent.
    pub(super) fn due(&self, now: Instant) -> Instant {
        match self.sent {
            Some(sent) if self.gap < self.close() => (sent + ROUND).max(now),
            _ => now,
        }
    }

    /// A round was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }
}

/// An average of which an observation leaves that part as it was.
fn smoothed(average: f64, observed: f64, kept: f64) -> f64 {
    average * kept + observed * (1.0 - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due after changes that come at this distance, each published in this time.
    fn pace_of(gap: Duration, took: Duration) -> Duration {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut wait = Duration::ZERO;
        for _ in 0..200 {
            now += gap;
            pace.arrived(1, now);
            wait = pace.due(now) - now;
            if wait.is_zero() {
                pace.sent(now);
                pace.published(took);
            }
        }
        wait
    }

    #[test]
    fn changes_that_come_one_by_one_are_sent_at_once() {
        let took = Duration::from_millis(2);
        assert_eq!(pace_of(Duration::from_millis(7), took), Duration::ZERO);
        assert_eq!(pace_of(Duration::from_secs(5), took), Duration::ZERO);
    }

    #[test]
    fn what_is_close_together_depends_on_what_publishing_takes() {
        let [quick, slow] = [1, 4].map(Duration::from_millis);
        let gap = Duration::from_millis(4);
        assert_eq!(pace_of(gap, quick), Duration::ZERO);
        assert!(pace_of(gap, slow) > Duration::ZERO);
        // However slow Kafka is.
        let minute = Duration::from_secs(60);
        assert_eq!(pace_of(ROUND + gap, minute), Duration::ZERO);
    }

    #[test]
    fn changes_that_come_close_together_are_gathered_for_one_round_at_most() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut rounds = 0;
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            pace.arrived(1, now);
            let wait = pace.due(now) - now;
            assert!(wait <= ROUND);
            if wait.is_zero() {
                pace.sent(now);
                rounds += 1;
            }
        }
        assert!((50..150).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_change_after_a_burst_is_sent_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.arrived(1_000, now);
        pace.sent(now);
        now += Duration::from_secs(1);
        pace.arrived(1, now);
        assert_eq!(pace.due(now), now);
    }
}
