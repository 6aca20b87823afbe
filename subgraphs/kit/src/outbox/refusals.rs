//! Events that Kafka will not take, whatever is tried: each holds back its own key and nothing else.
//!
//! Such an event is too large, or breaks a rule of its topic. Trying again helps only after somebody has changed the
//! topic, so it is tried less and less often. Meanwhile nothing of its key is held in memory: the store has it, and the
//! sweep offers it again when the pause is over.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use rand::Rng;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::Instant;

/// First and longest pause of a key. The first is short: what is refused may have shared a batch with the event at fault.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The log is told of a refusal no more often than this.
const SILENCE: Duration = Duration::from_secs(60);
/// A key of which nothing was offered for so long after its pause has been published by another instance.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Keys that are remembered. When more are refused, it is not the events.
const KEYS: usize = 10_000;

/// Whether Kafka says that it will never take this message, as it is and as the topic is.
pub(super) fn is_of_the_message(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::MessageBatchTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::PolicyViolation
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}

/// Whether nothing is wrong with this message: it was in one batch with a record that was refused.
pub(super) fn is_of_a_neighbour(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidDifferentRecord)
}

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

/// What is to be done about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// The key waits; it is time to say so.
    Loudly,
    /// The key waits.
    Quietly,
    /// Too many keys wait already: it is not this event.
    TooMany,
}

impl Refusals {
    /// Holds a key back, each time for twice as long.
    pub(super) fn hold(&mut self, key: &str, now: Instant) -> Held {
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
        // Not all at the same moment: what shared a batch with the event at fault must not share it again.
        refusal.until = now + refusal.pause.mul_f64(rand::rng().random_range(0.5..1.0));
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

    /// An event of the key was published.
    pub(super) fn release(&mut self, key: &str) {
        self.keys.remove(key);
    }

    /// Forgets keys that nobody offers any more.
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

    fn error(code: RDKafkaErrorCode) -> KafkaError {
        KafkaError::MessageProduction(code)
    }

    #[test]
    fn an_event_that_is_never_taken_is_told_from_a_kafka_that_is_away() {
        for code in [
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::InvalidRecord,
            RDKafkaErrorCode::PolicyViolation,
        ] {
            assert!(is_of_the_message(&error(code)), "{code}");
        }
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::QueueFull,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ] {
            assert!(!is_of_the_message(&error(code)), "{code}");
        }
        assert!(!is_of_the_message(&KafkaError::Canceled));
    }

    #[test]
    fn each_key_waits_for_itself_and_longer_each_time_up_to_a_bound() {
        let mut refusals = Refusals::default();
        let mut now = Instant::now();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            refusals.hold("large", now);
            assert!(refusals.is_held("large", now));
            assert!(!refusals.is_held("other", now));
            last = refusals.keys["large"].until - now;
            assert!(last >= FIRST_PAUSE / 2 && last <= LONGEST_PAUSE);
            now = refusals.keys["large"].until;
            assert!(!refusals.is_held("large", now));
        }
        assert!(last >= LONGEST_PAUSE / 2, "{last:?}");
        refusals.hold("other", now);
        assert!(refusals.keys["other"].until - now <= FIRST_PAUSE);
        assert_eq!(refusals.count(), 2);
        refusals.release("large");
        assert_eq!(refusals.count(), 1);
        refusals.hold("large", now);
        assert!(refusals.keys["large"].until - now <= FIRST_PAUSE);
    }

    #[test]
    fn the_log_is_told_once_in_a_while() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.hold("a", now), Held::Loudly);
        assert_eq!(refusals.hold("b", now), Held::Quietly);
        assert_eq!(refusals.hold("a", now + SILENCE / 2), Held::Quietly);
        assert_eq!(refusals.hold("a", now + SILENCE), Held::Loudly);
    }

    #[test]
    fn a_key_that_another_instance_published_is_forgotten() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        refusals.hold("a", now);
        refusals.tidy(now + FORGOTTEN / 2);
        assert_eq!(refusals.count(), 1);
        refusals.tidy(now + FORGOTTEN + LONGEST_PAUSE);
        assert_eq!(refusals.count(), 0);
    }

    #[test]
    fn when_everything_is_refused_it_is_not_the_events() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for number in 0..KEYS {
            assert_ne!(refusals.hold(&number.to_string(), now), Held::TooMany);
        }
        assert_eq!(refusals.hold("one more", now), Held::TooMany);
        assert_ne!(refusals.hold("7", now), Held::TooMany);
        assert_eq!(refusals.count(), KEYS);
    }
}
