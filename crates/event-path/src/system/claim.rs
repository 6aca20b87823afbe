//! Whether a service may use the topics: it judges by the claims, and claims them where that is its part.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tandem_model::cloudevents;
use tandem_runtime::{
    backoff::Backoff,
    clock::{Clock, Instant},
    shutdown::Shutdown,
};
use tokio::sync::watch;

use super::{SystemLog, signers::Signers};
use crate::{
    claims::{Claim, Claims},
    data_keys::{DataKey, KeyRing, Role},
    fault::{self, Fault},
    held_back::readable_ends,
    log::{Arrival, Attention, Log, LogError, Offsets},
    rebuild::is_filled,
    sealing::Sealer,
    signing::Signer,
    store::{Registry, StoreError},
};

/// Under this name a store remembers which system it is of.
const SYSTEM: &str = "system";
/// Under this name it remembers which system it is to be of, before that is claimed.
const SYSTEM_TO_BE: &str = "system-to-be";
/// The pauses while log or store are away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long another store's members may be in their group before they count as running: those of a process that was killed leave
/// after their session's time.
const STILL_THERE: Duration = Duration::from_secs(20);
/// How long a reader waits for the owner's claim before it uses topics that nobody has claimed.
const CLAIM_DELAY: Duration = Duration::from_secs(5);
/// So many events at the end of each partition are asked for their system where no claim tells of it.
const ASKED: i64 = 20;
/// So many data keys are tried where no claim tells of the sealing key.
const TRIED: usize = 20;
/// How long one event may take to come.
const READ: Duration = Duration::from_secs(10);
/// How often claims are made and looked at anew before others are waited for.
const ROUNDS: usize = 4;

/// A service as it comes to topics.
#[derive(Clone)]
pub struct Claimant {
    /// Its name, such as `accounts`.
    pub service: &'static str,
    /// The owner of the topic of keys claims the topics. A reader, which may not be allowed to write there, goes by that claim.
    pub role: Role,
    /// The name of a projection of its own, by whose consumer group a running instance is known.
    pub projection: &'static str,
    /// The topics of events that it writes or reads.
    pub topics: Vec<&'static str>,
    /// The identity of its store.
    pub store: String,
    /// Its sealing key.
    pub sealer: Sealer,
    /// What its store remembers.
    pub registry: Arc<dyn Registry>,
    /// Whether it takes the topics whoever has claimed them: an operator's order.
    pub takes_over: bool,
}

/// What a claimant may do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ClaimDecision {
    /// The topics are its system's.
    Ours(String),
    /// They are if no instance of the store that claimed them runs.
    OursUnlessAlive(String, Claim),
    /// Nobody has said whose they are.
    Unclaimed,
    /// They are another's: why, as a sentence.
    Refused(String),
}

/// What is known beside the claims.
#[derive(Clone, Copy, Debug, Default)]
struct Seen<'a> {
    /// The system that the store is of, if it knows.
    known: Option<&'a str>,
    /// Whether the store holds anything.
    is_filled: bool,
    /// The system that events in the log name, where nobody has claimed it.
    logged: Option<&'a str>,
    /// Whether the data keys on their topic open with the claimant's sealing key, where there are any and nobody has claimed it.
    opens: Option<bool>,
}

/// Judges by the claims, by what the claimant's store remembers of its system, and by whether that store holds anything.
fn decide(claims: &Claims, claimant: &Claimant, seen: Seen<'_>) -> ClaimDecision {
    let Claimant { service, store, .. } = claimant;
    let given = claimant.sealer.fingerprint();
    let Some(first) = &claims.first else {
        return judge_unclaimed(service, &given, claimant.takes_over, seen);
    };
    let system = &first.system;
    // A sealing key that was replaced is in the newest claim of the system, and not in the first.
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
        // The other store was lost, or it is a second system that has begun with an empty one, or the claim was copied here later.
        Some(claim) if seen.known.is_some() || !seen.is_filled => {
            ClaimDecision::OursUnlessAlive(system.clone(), claim.clone())
        }
        Some(claim) => ClaimDecision::Refused(format!(
            "the topics of this Kafka are claimed by another store of {service} ({}), and this one ({store}) holds data of its own: give it --topic-prefix for topics of its own, or --claim-topics if it is the one to go on with",
            claim.store
        )),
    }
}

/// Judges topics that nobody has claimed: they are new, or from before there were claims, or their topic of keys is lost or still to
/// come.
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

/// Finds out whose the topics are, and claims them where that is the service's part, in the background. Until that is done nothing is
/// published or projected. When the topics are another system's, the process ends with a sentence.
pub fn claim(claimant: Claimant, log: &SystemLog, keys: &KeyRing, shutdown: &Shutdown) {
    let attempt = Attempt {
        claimant,
        log: log.clone(),
        keys: keys.clone(),
        shutdown: shutdown.clone(),
    };
    shutdown.spawn(attempt.run());
}

/// Who finds out.
struct Attempt {
    claimant: Claimant,
    log: SystemLog,
    keys: KeyRing,
    shutdown: Shutdown,
}

/// Waits until another look is asked for; for ever where nobody is told of any.
async fn changed(looks: Option<&mut watch::Receiver<u64>>) {
    if let Some(looks) = looks
        && looks.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The system that the topics are of, `None` if nobody says so; or why they are none of the claimant's, as a sentence.
type PublishedRow = Result<Option<String>, String>;

impl Attempt {
    async fn run(self) {
        if !self.log.as_anybodys().ready().await {
            return;
        }
        loop {
            let begun = self.shutdown.clock().instant();
            let settled = self.shutdown.retry(
                BACKOFF,
                || self.settle(begun),
                |error, pause| {
                    tracing::warn!(%error, ?pause, "whose the topics are cannot be told yet; trying again");
                },
            );
            let settled = tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                settled = settled => settled,
            };
            let service = self.claimant.service;
            match settled {
                Some(Ok(Some(system))) => {
                    tracing::info!(system, service, "the topics are this system's");
                    self.log.admit(Some(&system));
                    self.keys.admit();
                    return self.watch_claims().await;
                }
                Some(Ok(None)) => {
                    tracing::info!(
                        service,
                        "nobody has claimed the topics; they are used as they are until somebody does"
                    );
                    self.log.admit(None);
                    self.keys.admit();
                }
                Some(Err(sentence)) => {
                    tracing::error!("{sentence}");
                    return self.shutdown.fail(&sentence);
                }
                None => return,
            }
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                () = self.keys.claimed() => {}
            }
        }
    }

    /// Who signs, if records are signed.
    fn signers(&self) -> Option<Signers<'_>> {
        Some(Signers {
            signatures: self.log.signatures()?,
            service: self.claimant.service,
            registry: self.claimant.registry.as_ref(),
            log: self.log.as_anybodys(),
            clock: self.shutdown.clock(),
            takes_over: self.claimant.takes_over,
        })
    }

    /// Looks at each new claim: readers learn keys of the owner, and the owner puts its own claim behind one that it did not sign, for
    /// compaction would leave that one alone.
    async fn watch_claims(&self) {
        let Some(signers) = self.signers() else {
            return;
        };
        let mut seen = 0;
        let is_reader = self.claimant.role == Role::Reader;
        let mut looks = is_reader.then(|| signers.signatures.looks());
        loop {
            seen = tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                seen = self.keys.claimed_anew(seen) => seen,
                () = changed(looks.as_mut()) => seen,
            };
            let look = looks.as_mut().map(|looks| *looks.borrow_and_update());
            let looked = self.shutdown.retry(
                BACKOFF,
                || async {
                    let claims = self.keys.claims().await?;
                    if is_reader {
                        return signers.learn(&claims).await;
                    }
                    match claims.of.get(self.claimant.service) {
                        Some(ours) if self.keys.is_last_claim_refused(self.claimant.service) => {
                            self.keys.claim(self.claimant.service, Some(ours)).await
                        }
                        _ => Ok(()),
                    }
                },
                |error, pause| {
                    tracing::warn!(%error, ?pause, "a claim of the topics cannot be looked at yet; trying again");
                },
            );
            tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                _ = looked => {}
            }
            if let Some(look) = look {
                signers.signatures.looked(look);
            }
        }
    }

    /// Judges, claims, looks what became of it, and claims again where others did so meanwhile.
    async fn settle(&self, begun: Instant) -> Result<PublishedRow, StoreError> {
        let Self {
            claimant,
            keys,
            shutdown,
            ..
        } = self;
        let clock = shutdown.clock();
        let known = claimant.registry.recall(SYSTEM).await?;
        let is_filled = is_filled(claimant.registry.as_ref()).await?;
        let signers = self.signers();
        if let Some(signers) = &signers {
            if let Err(sentence) = signers.recall().await? {
                return Ok(Err(sentence));
            }
            if claimant.role == Role::Reader
                && let Err(sentence) = signers.own(None, is_filled).await?
            {
                return Ok(Err(sentence));
            }
        }
        // What was there before the claim of this attempt, to be put back if it comes to nothing.
        let mut before: Option<Option<Claim>> = None;
        for _ in 0..ROUNDS {
            let claims = keys.claims().await?;
            let (mut logged, mut opens) = (None, None);
            if claims.first.is_none() {
                let topics = &claimant.topics;
                self.nothing_is_held_back(clock).await?;
                if !self.waits_for_a_claim() {
                    logged = system_of_events(self.log.as_anybodys(), topics, clock).await?;
                }
                opens = opens_any(&keys.some_published(TRIED), &claimant.sealer);
            }
            let seen = Seen {
                known: known.as_deref(),
                is_filled,
                logged: logged.as_deref(),
                opens,
            };
            let system = match decide(&claims, claimant, seen) {
                ClaimDecision::Ours(system) => system,
                ClaimDecision::Unclaimed if claimant.role == Role::Owner => {
                    // The same for all instances, and for all tries: a claim that arrives late, or comes to stand alone by
                    // compaction, names no other system.
                    let fresh = clock.new_id().to_string();
                    claimant.registry.remember(SYSTEM_TO_BE, &fresh).await?
                }
                ClaimDecision::Unclaimed => {
                    // The owner may be starting just now.
                    if clock.timeout(CLAIM_DELAY, keys.claimed()).await.is_ok() {
                        continue;
                    }
                    if self.waits_for_a_claim() {
                        return Err(StoreError::Away(
                            "nobody has claimed the topics, so whose events count is not known: accounts claims them when it starts".to_owned(),
                        ));
                    }
                    return Ok(Ok(None));
                }
                ClaimDecision::OursUnlessAlive(system, claim) => {
                    if self.is_alive(&claim).await? {
                        let sentence = format!(
                            "the topics of this Kafka belong to system {system}, whose {} is running on another store ({}): two systems need --topic-prefix for topics of their own",
                            claimant.service, claim.store
                        );
                        if clock.since(begun) < STILL_THERE {
                            return Err(StoreError::Away(sentence));
                        }
                        self.undo(before).await?;
                        return Ok(Err(sentence));
                    }
                    system
                }
                ClaimDecision::Refused(sentence) => {
                    self.undo(before).await?;
                    return Ok(Err(sentence));
                }
            };
            let newest = claims.of.get(claimant.service);
            let mut ours = Claim {
                system,
                store: claimant.store.clone(),
                sealing_key: sealing_key_of(newest, &claimant.sealer),
                ..Claim::default()
            };
            match (&signers, claimant.role) {
                (Some(signers), Role::Owner) => match signers.own(newest, is_filled).await? {
                    Ok(Some(Signer { keys, from })) => {
                        (ours.verifying_keys, ours.signed_from) = (keys, from);
                    }
                    Ok(None) => {}
                    Err(sentence) => {
                        self.undo(before).await?;
                        return Ok(Err(sentence));
                    }
                },
                (Some(signers), Role::Reader) => signers.learn(&claims).await?,
                (None, _) => {}
            }
            if claimant.role == Role::Reader || newest == Some(&ours) {
                if known.as_deref() != Some(&ours.system) {
                    claimant.registry.note(SYSTEM, &ours.system).await?;
                }
                return Ok(Ok(Some(ours.system)));
            }
            before.get_or_insert_with(|| newest.cloned());
            keys.claim(claimant.service, Some(&ours)).await?;
            // Of two that came at once the first one counts: the next round sees it.
        }
        Err(StoreError::Away(format!(
            "another {} claims the topics at the same time",
            claimant.service
        )))
    }

    /// Whether the topics are not used before somebody has claimed them. A reader that asks for signatures knows none of the others' keys
    /// before, unless it was given them: it would take whatever anybody has written, an erasure too, and what the newest events say of
    /// their system.
    fn waits_for_a_claim(&self) -> bool {
        let service = self.claimant.service;
        self.claimant.role == Role::Reader
            && !fault::is_on(Fault::ClaimNotAwaited)
            && self.log.signatures().is_some_and(|signatures| {
                let mut others = signatures.services().into_iter();
                !signatures.accepts_unsigned()
                    && others.any(|other| other != service && signatures.given(other).is_empty())
            })
    }

    /// Nothing is concluded from there being no claim, and no event that names a system, while a transaction hides a part of the topics: as
    /// where they are copied here in one that has not ended.
    async fn nothing_is_held_back(&self, clock: &Clock) -> Result<(), StoreError> {
        let topics = self.claimant.topics.iter().copied();
        for topic in topics.chain([self.keys.topic()]) {
            let log: &dyn Log = self.log.as_anybodys().as_ref();
            let looked = readable_ends(log, topic, Duration::ZERO, clock, |_| ()).await;
            let (_, parts) = looked.map_err(|error| StoreError::Away(error.to_string()))?;
            if !parts.is_empty() {
                return Err(StoreError::Away(format!(
                    "nobody has claimed the topics as far as they can be read, and {topic} is held back, {parts}: a transaction of another producer is open there"
                )));
            }
        }
        Ok(())
    }

    /// Puts back the claim that was there before.
    async fn undo(&self, before: Option<Option<Claim>>) -> Result<(), StoreError> {
        match before {
            Some(before) => {
                self.keys
                    .claim(self.claimant.service, before.as_ref())
                    .await
            }
            None => Ok(()),
        }
    }

    /// Whether an instance of the store that claimed runs.
    async fn is_alive(&self, claim: &Claim) -> Result<bool, StoreError> {
        let group = format!("{}.{}", self.claimant.projection, claim.store);
        self.log.has_members(&group).await.map_err(|error| {
            StoreError::Away(format!(
                "whether the store that claimed the topics ({}) is in use cannot be told, {error}; --claim-topics takes them over",
                claim.store
            ))
        })
    }
}

/// The fingerprint to claim with: that of a key which is being replaced stays until the replacement is through.
fn sealing_key_of(newest: Option<&Claim>, sealer: &Sealer) -> String {
    let claimed = newest.map(|claim| claim.sealing_key.clone());
    claimed
        .filter(|fingerprint| sealer.has(fingerprint))
        .unwrap_or_else(|| sealer.fingerprint())
}

/// Whether any of these data keys opens with a sealing key; `None` if there are none.
fn opens_any(published: &[(String, String)], sealer: &Sealer) -> Option<bool> {
    let opens =
        |(subject, wrapped): &(String, String)| DataKey::unwrap(sealer, wrapped, subject).is_ok();
    (!published.is_empty()).then(|| published.iter().any(opens))
}

/// The system that the newest events of these topics name, if they name any.
async fn system_of_events(
    log: &Arc<dyn Log>,
    topics: &[&'static str],
    clock: &Clock,
) -> Result<Option<String>, StoreError> {
    let away = |error: LogError| StoreError::Away(error.to_string());
    for topic in topics {
        let ends = log.topic(topic).await.map_err(away)?.ends;
        let from: Offsets = ends
            .iter()
            .filter(|(_, (low, high))| low < high)
            .map(|(partition, (low, high))| (*partition, (high - ASKED).max(*low)))
            .collect();
        let mut left: HashSet<i32> = from.keys().copied().collect();
        if left.is_empty() {
            continue;
        }
        let tail = log.tail(topic, &from, Attention::Prompt).map_err(away)?;
        while !left.is_empty() {
            let arrival = clock.timeout(READ, tail.next()).await;
            match arrival.map_err(|_| StoreError::Away(format!("{topic} was silent")))? {
                Ok(Arrival::Record(message)) => {
                    if let Some(system) = message.header(cloudevents::SYSTEM) {
                        return Ok(Some(system.to_owned()));
                    }
                }
                Ok(Arrival::End(partition)) => {
                    left.remove(&partition);
                }
                Err(error) => return Err(away(error)),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_trait::async_trait;

    use super::*;

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
        // From before there were claims.
        assert_eq!(judged(seen(None, true)), ClaimDecision::Unclaimed);
        // The topics were lost.
        assert_eq!(judged(seen(Some("a"), true)), ours("a"));
        // The topic of keys is still to come.
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

    #[test]
    fn a_sealing_key_is_tried_where_nobody_claimed_the_topics() {
        let (right, wrong) = (Sealer::new(&[7; 32]), Sealer::new(&[8; 32]));
        let published = [("1".to_owned(), DataKey::make(&right, "1").1)];
        assert_eq!(opens_any(&published, &right), Some(true));
        assert_eq!(opens_any(&published, &wrong), Some(false));
        assert_eq!(opens_any(&[], &wrong), None);
    }
}
