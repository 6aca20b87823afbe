//! Decides when to publish, so that batches form only under load.
//!
//! While few events are in flight to Kafka, a change is sent at once. While many are in flight, new changes wait until
//! those are acknowledged, and are sent together. So requests to Kafka, and the writes of its readers, are shared only
//! when there is a queue. A single change never waits. TCP does the same with small segments (Nagle's algorithm, RFC
//! 896).

use std::time::Duration;

use tandem_runtime::clock::Instant;

/// With fewer events in flight than this, waiting gains nothing: their acknowledgement takes as long as the next
/// request would.
const FEW: usize = 4;

/// The linger of one relay. See the module.
#[derive(Debug)]
pub(super) struct AdaptiveLinger {
    /// The longest wait, however many events are in flight.
    longest: Duration,
    /// When the last round was sent.
    sent: Option<Instant>,
}

impl AdaptiveLinger {
    /// A linger of at most `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            sent: None,
        }
    }

    /// When the gathered events may be sent, with this many events in flight.
    pub(super) fn due(&self, on_their_way: usize, now: Instant) -> Instant {
        match self.sent {
            Some(sent) if on_their_way >= FEW => (sent + self.longest).max(now),
            _ => now,
        }
    }

    /// Notes that a round was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const LONGEST: Duration = Duration::from_millis(5);

    /// Simulates one second with a change every `gap`, each acknowledged `took` after it was sent. Returns the number
    /// of rounds and the longest wait of a change.
    fn second_of(gap: Duration, took: Duration) -> (u32, Duration) {
        let start = Instant::now();
        let (mut now, mut next) = (start, start);
        let mut linger = AdaptiveLinger::new(LONGEST);
        let mut offered: VecDeque<Instant> = VecDeque::new();
        let mut acknowledged: VecDeque<Instant> = VecDeque::new();
        let (mut rounds, mut longest) = (0, Duration::ZERO);
        while now < start + Duration::from_secs(1) {
            acknowledged.retain(|due| *due > now);
            if next <= now {
                offered.push_back(next);
                next += gap;
            }
            let due = linger.due(acknowledged.len(), now);
            if !offered.is_empty() && due <= now {
                linger.sent(now);
                rounds += 1;
                for came in offered.drain(..) {
                    longest = longest.max(now - came);
                    acknowledged.push_back(now + took);
                }
            }
            now += Duration::from_micros(50);
        }
        (rounds, longest)
    }

    #[test]
    fn changes_that_come_one_by_one_are_sent_at_once() {
        let took = Duration::from_millis(2);
        for gap in [1, 3, 7, 500].map(Duration::from_millis) {
            let (_, longest) = second_of(gap, took);
            assert!(longest < Duration::from_micros(100), "{gap:?}: {longest:?}");
        }
    }

    #[test]
    fn changes_that_come_faster_than_they_are_acknowledged_go_together_when_those_before_are() {
        let (rounds, longest) = second_of(Duration::from_micros(200), Duration::from_millis(2));
        assert!((300..=700).contains(&rounds), "{rounds}");
        assert!(longest <= Duration::from_millis(3), "{longest:?}");
    }

    #[test]
    fn nothing_waits_longer_than_the_bound_however_slow_kafka_is() {
        let (rounds, longest) = second_of(Duration::from_micros(200), Duration::from_secs(60));
        assert!((150..=220).contains(&rounds), "{rounds}");
        assert!(
            longest <= LONGEST + Duration::from_micros(100),
            "{longest:?}"
        );
    }

    #[test]
    fn without_a_bound_to_wait_for_nothing_waits() {
        let mut linger = AdaptiveLinger::new(Duration::ZERO);
        let now = Instant::now();
        linger.sent(now);
        assert_eq!(linger.due(1_000, now), now);
    }

    #[test]
    fn a_change_after_a_burst_is_sent_at_once() {
        let mut linger = AdaptiveLinger::new(LONGEST);
        let now = Instant::now();
        linger.sent(now);
        let later = now + Duration::from_secs(1);
        assert_eq!(linger.due(1_000, later), later);
        assert_eq!(linger.due(0, now), now);
    }
}
