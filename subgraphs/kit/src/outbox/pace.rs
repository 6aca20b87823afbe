//! When to publish: a change alone goes out at once; when many come, they are gathered for a moment, so that they share
//! requests to Kafka and the writes of those who read them. (Network drivers do the same with interrupts.)

use std::time::Duration;

use tokio::time::Instant;

/// Changes are gathered when they come closer together, on the average of late, than so many times what publishing one takes.
/// So it fits machines and networks of any speed: the slower the way, the more there is to share on it.
const CLOSE: f64 = 2.5;
/// What publishing is taken to need until it is known.
const FIRST_GUESS: Duration = Duration::from_millis(2);
/// How long a round of gathering takes at least.
const ROUND: Duration = Duration::from_millis(15);
/// How long it takes at most: so much later than it could be is a change known under load.
const LONGEST_ROUND: Duration = Duration::from_millis(50);
/// Rounds become longer from so many changes in a shortest one: then they come faster than anybody looks at each, and what a round costs
/// everybody on the way (requests for each partition, the writes of each reader) is better spent on more of them.
const MANY: f64 = 32.0;
/// How much of the rate of earlier rounds the last one leaves as it was.
const ROUNDS_MEMORY: f64 = 0.5;
/// What takes longer than this counts as this long, so that a burst after a quiet time is noticed soon.
const LONGEST_GAP: Duration = Duration::from_millis(100);
/// How long nothing is gathered after a round that nobody joined: whoever makes one change after the other, and looks at each before the
/// next, would only wait for himself.
const ALONE: Duration = Duration::from_secs(1);
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
    /// Changes a second, as the last rounds had them, smoothed.
    rate: f64,
    /// Whether what has come waits for more.
    gathering: bool,
    /// Until when waiting is taken to be in vain.
    alone_until: Option<Instant>,
}

impl Pace {
    /// The pace of a relay to which nothing came yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            arrived: now,
            gap: LONGEST_GAP.as_secs_f64(),
            took: FIRST_GUESS.as_secs_f64(),
            sent: None,
            rate: 0.0,
            gathering: false,
            alone_until: None,
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
    pub(super) fn due(&mut self, now: Instant) -> Instant {
        let is_alone = self.alone_until.is_some_and(|end| now < end);
        let due = match self.sent {
            Some(sent) if self.gap < self.close() && !is_alone => (sent + self.round()).max(now),
            _ => now,
        };
        self.gathering |= due > now;
        due
    }

    /// How long to gather: the longer, the more comes.
    fn round(&self) -> Duration {
        let shortest = ROUND.as_secs_f64();
        let worth = shortest * (self.rate * shortest / MANY);
        Duration::from_secs_f64(worth.clamp(shortest, LONGEST_ROUND.as_secs_f64()))
    }

    /// A round of so many changes was sent.
    pub(super) fn sent(&mut self, count: usize, now: Instant) {
        let since = self.sent.map_or(LONGEST_GAP, |sent| now - sent);
        let rate = count as f64 / since.max(ROUND).as_secs_f64();
        self.rate = smoothed(self.rate, rate, ROUNDS_MEMORY);
        self.sent = Some(now);
        let gathered = std::mem::take(&mut self.gathering);
        if count > 1 {
            self.alone_until = None;
        } else if gathered {
            self.alone_until = Some(now + ALONE);
        }
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
        let mut offered = 0;
        for _ in 0..200 {
            now += gap;
            offered += 1;
            pace.arrived(1, now);
            wait = pace.due(now) - now;
            if wait.is_zero() {
                pace.sent(offered, now);
                pace.published(took);
                offered = 0;
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

    /// The rounds in which changes at this distance are sent, within a second of them that came after another second of the same.
    fn rounds_at(gap: Duration) -> u32 {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let (mut offered, mut rounds) = (0, 0);
        let second = (Duration::from_secs(1).as_nanos() / gap.as_nanos()) as u32;
        for change in 0..2 * second {
            now += gap;
            offered += 1;
            pace.arrived(1, now);
            let wait = pace.due(now) - now;
            assert!(wait <= LONGEST_ROUND);
            if wait.is_zero() {
                pace.sent(offered, now);
                offered = 0;
                rounds += u32::from(change >= second);
            }
        }
        rounds
    }

    #[test]
    fn changes_that_come_close_together_are_gathered() {
        assert!((60..70).contains(&rounds_at(Duration::from_millis(1))));
    }

    #[test]
    fn the_more_comes_the_longer_a_round_up_to_a_bound() {
        let [some, many, most] =
            [2_000, 5_000, 50_000].map(|rate| rounds_at(Duration::from_secs(1) / rate));
        assert!((60..70).contains(&some), "{some}");
        assert!((25..35).contains(&many), "{many}");
        assert!((18..23).contains(&most), "{most}");
    }

    #[test]
    fn who_waits_for_each_change_before_the_next_is_seldom_delayed() {
        let took = Duration::from_millis(2);
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut delayed = 0;
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            pace.arrived(1, now);
            let due = pace.due(now);
            delayed += u32::from(due > now);
            pace.sent(1, due);
            pace.published(took);
            now = due + took;
        }
        assert!((1..=4).contains(&delayed), "{delayed}");
    }

    #[test]
    fn company_ends_the_time_in_which_nothing_is_gathered() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let gap = Duration::from_millis(1);
        let mut come = |pace: &mut Pace| {
            now += gap;
            pace.arrived(1, now);
            (pace.due(now), now)
        };
        while let (due, now) = come(&mut pace)
            && due <= now
        {
            pace.sent(1, now);
        }
        let (due, _) = come(&mut pace);
        pace.sent(1, due);
        let (due, now) = come(&mut pace);
        assert!(due <= now, "waited in vain a moment ago");
        pace.sent(2, now);
        let (due, now) = come(&mut pace);
        assert!(due > now);
    }

    #[test]
    fn a_change_after_a_burst_is_sent_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.arrived(1_000, now);
        pace.sent(1_000, now);
        now += Duration::from_secs(1);
        pace.arrived(1, now);
        assert_eq!(pace.due(now), now);
    }
}
