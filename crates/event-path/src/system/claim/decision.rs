//! Decides whether a claimant may use the topics, by the claims and by what its store knows. Pure functions without
//! I/O.

use super::Claimant;
use crate::claims::{Claim, Claims};

/// The decision for a claimant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClaimDecision {
    /// The topics belong to its system.
    Ours(String),
    /// The topics belong to its system if no instance of the store that claimed them is running.
    OursUnlessAlive(String, Claim),
    /// Nobody has claimed the topics.
    Unclaimed,
    /// The claimant may not use the topics; the reason, as a message.
    Refused(String),
}

/// The evidence besides the claims.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen<'a> {
    /// The system that the store belongs to, if the store knows.
    pub(super) known: Option<&'a str>,
    /// Whether the store holds any data.
    pub(super) is_filled: bool,
    /// The system that events in the log name, if nobody has claimed the topics.
    pub(super) logged: Option<&'a str>,
    /// Whether the published data keys open with the claimant's sealing key. `None` if there are no keys, or if the
    /// topics are claimed.
    pub(super) opens: Option<bool>,
}

/// Decides by the claims, by the system that the claimant's store remembers, and by whether that store holds any
/// data.
pub(super) fn decide(claims: &Claims, claimant: &Claimant, seen: Seen<'_>) -> ClaimDecision {
    let Claimant { service, store, .. } = claimant;
    let given = claimant.sealer.fingerprint();
    let Some(first) = &claims.first else {
        return judge_unclaimed(service, &given, claimant.takes_over, seen);
    };
    let system = &first.system;
    // The newest claim of the system names the present sealing key. The first claim may name one that was replaced.
    let newest = claims.of.values().find(|claim| claim.system == *system);
    let sealing_key = &newest.unwrap_or(first).sealing_key;
    if !claimant.sealer.has(sealing_key) {
        return ClaimDecision::Refused(format!(
            "the topics of this Kafka belong to system {system}, whose sealing key has the fingerprint {sealing_key}, and {service} was given another one ({given}): give it that system's key, or --topic-prefix for topics of its own"
        ));
    }
    if claimant.takes_over {
        return ClaimDecision::Ours(system.clone());
    }
    if let Some(known) = seen.known.filter(|known| known != system) {
        return ClaimDecision::Refused(format!(
            "the topics of this Kafka belong to system {system}, and the store of {service} to system {known}: give one of the two systems --topic-prefix for topics of its own"
        ));
    }
    let of = claims.of.get(*service);
    match of.filter(|claim| claim.store != *store) {
        None => ClaimDecision::Ours(system.clone()),
        // The other store was lost, or this is a second system that starts with an empty store, or the claim was
        // copied here later.
        Some(claim) if seen.known.is_some() || !seen.is_filled => {
            ClaimDecision::OursUnlessAlive(system.clone(), claim.clone())
        }
        Some(claim) => ClaimDecision::Refused(format!(
            "the topics of this Kafka are claimed by another store of {service} ({}), and this one ({store}) holds data of its own: give it --topic-prefix for topics of its own, or --claim-topics if it is the one to go on with",
            claim.store
        )),
    }
}

/// Decides about topics without a claim: they are new, or older than claims, or their topic of keys is lost or has
/// not arrived yet.
fn judge_unclaimed(service: &str, given: &str, takes_over: bool, seen: Seen<'_>) -> ClaimDecision {
    if seen.opens == Some(false) {
        return ClaimDecision::Refused(format!(
            "the data keys on the topics of this Kafka do not open with the sealing key that {service} was given (fingerprint {given}): give it the key that they were wrapped with, or --topic-prefix for topics of its own"
        ));
    }
    let system = match (seen.known, seen.logged) {
        (Some(known), Some(logged)) if known != logged && !takes_over => {
            return ClaimDecision::Refused(format!(
                "the events on the topics of this Kafka are of system {logged}, and the store of {service} of system {known}: give one of the two systems --topic-prefix for topics of its own"
            ));
        }
        (known, logged) if takes_over => logged.or(known),
        (known, logged) => known.or(logged),
    };
    system.map_or(ClaimDecision::Unclaimed, |system| {
        ClaimDecision::Ours(system.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        data_keys::Role,
        sealing::Sealer,
        store::{Registry, StoreError},
    };

    struct Nothing;

    #[async_trait]
    impl Registry for Nothing {
        async fn recall(&self, _: &str) -> Result<Option<String>, StoreError> {
            Ok(None)
        }

        async fn remember(&self, _: &str, value: &str) -> Result<String, StoreError> {
            Ok(value.to_owned())
        }

        async fn note(&self, _: &str, _: &str) -> Result<(), StoreError> {
            Ok(())
        }

        async fn forget(&self, _: &str) -> Result<(), StoreError> {
            Ok(())
        }

        async fn recall_all(&self, _: &str) -> Result<Vec<(String, String)>, StoreError> {
            Ok(Vec::new())
        }
    }

    fn mine() -> Claimant {
        Claimant {
            service: "accounts",
            role: Role::Owner,
            projection: "accounts-audit",
            topics: Vec::new(),
            store: "mine".to_owned(),
            sealer: Sealer::new(&[7; 32]),
            registry: Arc::new(Nothing),
            takes_over: false,
        }
    }

    fn claim(system: &str, store: &str) -> Claim {
        Claim {
            system: system.to_owned(),
            store: store.to_owned(),
            sealing_key: Sealer::new(&[7; 32]).fingerprint(),
            ..Claim::default()
        }
    }

    fn claims(service: &str, claim: Claim) -> Claims {
        Claims {
            first: Some(claim.clone()),
            of: [(service.to_owned(), claim)].into(),
            ..Claims::default()
        }
    }

    fn seen(known: Option<&str>, is_filled: bool) -> Seen<'_> {
        Seen {
            known,
            is_filled,
            ..Seen::default()
        }
    }

    fn ours(system: &str) -> ClaimDecision {
        ClaimDecision::Ours(system.to_owned())
    }

    fn is_refused(decision: &ClaimDecision, words: &str) -> bool {
        matches!(decision, ClaimDecision::Refused(sentence) if sentence.contains(words))
    }

    #[test]
    fn topics_that_nobody_claimed_are_of_the_store_or_of_their_events_or_new() {
        let judged = |seen| decide(&Claims::default(), &mine(), seen);
        assert_eq!(judged(seen(None, false)), ClaimDecision::Unclaimed);
        // Topics that are older than claims.
        assert_eq!(judged(seen(None, true)), ClaimDecision::Unclaimed);
        // The topics were lost.
        assert_eq!(judged(seen(Some("a"), true)), ours("a"));
        // The topic of keys has not arrived yet.
        let logged = |known| Seen {
            logged: Some("a"),
            ..seen(known, false)
        };
        assert_eq!(judged(logged(None)), ours("a"));
        assert_eq!(judged(logged(Some("a"))), ours("a"));
        assert!(is_refused(&judged(logged(Some("b"))), "of system a"));
        let ordered = Claimant {
            takes_over: true,
            ..mine()
        };
        let taken = decide(&Claims::default(), &ordered, logged(Some("b")));
        assert_eq!(taken, ours("a"));
        let shut = Seen {
            opens: Some(false),
            ..seen(None, true)
        };
        assert!(is_refused(
            &judged(shut),
            "do not open with the sealing key"
        ));
    }

    #[test]
    fn topics_are_of_the_system_that_claimed_them_first() {
        let judged = |claims: &Claims, known, filled| decide(claims, &mine(), seen(known, filled));
        // Claimed by this store, or by the other service of this system.
        let own = claims("accounts", claim("a", "mine"));
        assert_eq!(judged(&own, Some("a"), true), ours("a"));
        let orders = claims("orders", claim("a", "other"));
        assert_eq!(judged(&orders, None, false), ours("a"));
        // Claimed for another system, by another key, or by another store that is in use.
        assert!(is_refused(&judged(&orders, Some("b"), true), "to system b"));
        let other = claims("accounts", claim("a", "other"));
        assert!(is_refused(&judged(&other, None, true), "data of its own"));
        let alive = ClaimDecision::OursUnlessAlive("a".to_owned(), claim("a", "other"));
        assert_eq!(judged(&other, None, false), alive);
        assert_eq!(judged(&other, Some("a"), true), alive);
        let keyed = Claimant {
            sealer: Sealer::new(&[8; 32]),
            takes_over: true,
            ..mine()
        };
        let decision = decide(&other, &keyed, seen(None, false));
        assert!(is_refused(&decision, "was given another one"));
        let ordered = Claimant {
            takes_over: true,
            ..mine()
        };
        assert_eq!(decide(&other, &ordered, seen(Some("b"), true)), ours("a"));
    }
}
