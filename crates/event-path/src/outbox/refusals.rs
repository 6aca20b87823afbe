//! Events that Kafka refuses in every retry. Each holds back its own key and nothing else.
//!
//! Such an event is too large, or violates a rule of its topic. A retry helps only after somebody has changed the
//! topic, so retries become rare. In the meantime no event of the key is held in memory. The events are in the store,
//! and the sweep offers them again after the pause.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use tandem_runtime::clock::{Clock, Instant};

/// First and longest pause of a key. The first is short, because a refused event may only have shared a batch with the
/// faulty one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The shortest time between two log messages about refusals.
const SILENCE: Duration = Duration::from_secs(60);
/// A key is forgotten if no event of it was offered for this long after its pause. Another instance has published its
/// events.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Most keys that are remembered. If more are refused, the cause is not the events.
const KEYS: usize = 10_000;

#[derive(Debug)]
struct Refusal {
    until: Instant,
    pause: Duration,
}

/// The keys that are held back.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    keys: HashMap<String, Refusal>,
    told: Option<Instant>,
}

/// How the caller must treat a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The key waits, and the refusal must be logged.
    Loudly,
    /// The key waits.
    Quietly,
    /// Too many keys wait already, so the cause is not this event.
    TooMany,
}

impl Refusals {
    /// Holds a key back. Each further pause is twice as long.
    pub(super) fn hold(&mut self, key: &str, clock: &Clock) -> Held {
        let now = clock.instant();
        let is_full = self.keys.len() >= KEYS;
        let refusal = match self.keys.entry(key.to_owned()) {
            Entry::Occupied(entry) => {
                let refusal = entry.into_mut();
                refusal.pause = (refusal.pause * 2).min(LONGEST_PAUSE);
                refusal
            }
            Entry::Vacant(_) if is_full => return Held::TooMany,
            Entry::Vacant(entry) => entry.insert(Refusal {
                until: now,
                pause: FIRST_PAUSE,
            }),
        };
        // The jitter separates the keys: events that shared a batch with the faulty one must not share it again.
        refusal.until = now + clock.jittered(refusal.pause);
        if self.told.is_some_and(|told| now < told + SILENCE) {
            return Held::Quietly;
        }
        self.told = Some(now);
        Held::Loudly
    }

    /// Whether a key is held back now.
    pub(super) fn is_held(&self, key: &str, now: Instant) -> bool {
        self.keys
            .get(key)
            .is_some_and(|refusal| now < refusal.until)
    }

    /// Notes that an event of the key was published.
    pub(super) fn release(&mut self, key: &str) {
        self.keys.remove(key);
    }

    /// Forgets keys that are no longer offered.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.keys
            .retain(|_, refusal| now < refusal.until + FORGOTTEN);
    }

    /// How many keys have an event that Kafka does not take.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_key_waits_for_itself_and_longer_each_time_up_to_a_bound() {
        let (mut refusals, clock) = (Refusals::default(), Clock::default());
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            refusals.hold("large", &clock);
            assert!(refusals.is_held("large", clock.instant()));
            assert!(!refusals.is_held("other", clock.instant()));
            last = refusals.keys["large"].until - clock.instant();
            assert!(last >= FIRST_PAUSE / 2 && last <= LONGEST_PAUSE);
            tokio::time::advance(last).await;
            assert!(!refusals.is_held("large", clock.instant()));
        }
        assert!(last >= LONGEST_PAUSE / 2, "{last:?}");
        refusals.hold("other", &clock);
        assert!(refusals.keys["other"].until - clock.instant() <= FIRST_PAUSE);
        assert_eq!(refusals.count(), 2);
        refusals.release("large");
        assert_eq!(refusals.count(), 1);
        refusals.hold("large", &clock);
        assert!(refusals.keys["large"].until - clock.instant() <= FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_told_once_in_a_while() {
        let (mut refusals, clock) = (Refusals::default(), Clock::default());
        assert_eq!(refusals.hold("a", &clock), Held::Loudly);
        assert_eq!(refusals.hold("b", &clock), Held::Quietly);
        tokio::time::advance(SILENCE / 2).await;
        assert_eq!(refusals.hold("a", &clock), Held::Quietly);
        tokio::time::advance(SILENCE / 2).await;
        assert_eq!(refusals.hold("a", &clock), Held::Loudly);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_another_instance_published_is_forgotten() {
        let (mut refusals, clock) = (Refusals::default(), Clock::default());
        refusals.hold("a", &clock);
        refusals.tidy(clock.instant() + FORGOTTEN / 2);
        assert_eq!(refusals.count(), 1);
        refusals.tidy(clock.instant() + FORGOTTEN + LONGEST_PAUSE);
        assert_eq!(refusals.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn when_everything_is_refused_it_is_not_the_events() {
        let (mut refusals, clock) = (Refusals::default(), Clock::default());
        for number in 0..KEYS {
            assert_ne!(refusals.hold(&number.to_string(), &clock), Held::TooMany);
        }
        assert_eq!(refusals.hold("one more", &clock), Held::TooMany);
        assert_ne!(refusals.hold("7", &clock), Held::TooMany);
        assert_eq!(refusals.count(), KEYS);
    }
}
