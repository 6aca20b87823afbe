//! Decides whether a service may use the topics: judges the claims on them, and publishes a claim if the service owns
//! the topic of keys.

mod claimant;
mod decision;
mod evidence;
mod watching;

use std::time::Duration;

use tandem_runtime::{
    backoff::Backoff,
    clock::{Clock, Instant},
    shutdown::Shutdown,
};

use super::{SystemLog, signers::Signers};
use crate::{
    claims::Claim,
    data_keys::{KeyRing, Role},
    fault::{self, Fault},
    held_back::readable_ends,
    log::Log,
    rebuild::is_filled,
    sealing::Sealer,
    store::StoreError,
};

pub use claimant::Claimant;
use decision::{ClaimDecision, Seen, decide};
use evidence::{opens_any, system_of_events};

/// The registry entry of the system that a store belongs to.
const SYSTEM: &str = "system";
/// The registry entry of the system that a store will belong to, noted before the claim is published.
const SYSTEM_TO_BE: &str = "system-to-be";
/// The pauses while log or store are unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long another store may have members in its consumer group before it counts as running. The members of a killed
/// process leave only after their session timeout.
const STILL_THERE: Duration = Duration::from_secs(20);
/// How long a reader waits for the owner's claim before it uses topics that nobody has claimed.
const CLAIM_DELAY: Duration = Duration::from_secs(5);
/// How many data keys are tried if no claim names the sealing key.
const TRIED: usize = 20;
/// How often an attempt claims and looks again before it pauses for other claimants.
const ROUNDS: usize = 4;

/// Finds out in the background who owns the topics, and claims them if that is the service's role. Until then nothing
/// is published or projected. If the topics belong to another system, the process ends with an error message.
pub fn claim(claimant: Claimant, log: &SystemLog, keys: &KeyRing, shutdown: &Shutdown) {
    let attempt = Attempt {
        claimant,
        log: log.clone(),
        keys: keys.clone(),
        shutdown: shutdown.clone(),
    };
    shutdown.spawn(attempt.run());
}

/// The attempt of a service to use the topics.
struct Attempt {
    claimant: Claimant,
    log: SystemLog,
    keys: KeyRing,
    shutdown: Shutdown,
}

/// `Ok`: the system that owns the topics, or `None` if nobody has claimed them. `Err`: the message why the claimant
/// may not use them.
type ClaimOutcome = Result<Option<String>, String>;

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
                    self.keys.remember();
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

    /// The signers, if records are signed.
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

    /// Judges the claims, publishes a claim if needed, and checks the result. Repeats this if others claim meanwhile.
    async fn settle(&self, begun: Instant) -> Result<ClaimOutcome, StoreError> {
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
        // The claim from before this attempt, to restore it if the attempt fails.
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
                    // Remembered, so that all instances and all attempts use the same identity. A claim that arrives
                    // late, or that compaction leaves alone on the topic, then names no other system.
                    let fresh = clock.new_id().to_string();
                    claimant.registry.remember(SYSTEM_TO_BE, &fresh).await?
                }
                ClaimDecision::Unclaimed => {
                    // The owner may be starting right now.
                    if clock.timeout(CLAIM_DELAY, keys.claimed()).await.is_ok() {
                        continue;
                    }
                    if self.waits_for_a_claim() {
                        return Err(StoreError::Unavailable(
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
                            return Err(StoreError::Unavailable(sentence));
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
                number: newest.map_or(0, |newest| newest.number),
                ..Claim::default()
            };
            match (&signers, claimant.role) {
                (Some(signers), Role::Owner) => match signers.own(newest, is_filled).await? {
                    Ok(Some(signer)) => ours.set_signer(signer),
                    Ok(None) => {}
                    Err(sentence) => {
                        self.undo(before).await?;
                        return Ok(Err(sentence));
                    }
                },
                (Some(signers), Role::Reader) => signers.learn(&claims).await?,
                (None, _) => {}
            }
            // A claim from before claims were numbered is published again with a number.
            let is_counted = ours.number > 0 || signers.is_none();
            if claimant.role == Role::Reader || (newest == Some(&ours) && is_counted) {
                if known.as_deref() != Some(&ours.system) {
                    claimant.registry.note(SYSTEM, &ours.system).await?;
                }
                if claimant.role == Role::Owner {
                    self.note_number(ours.number).await?;
                }
                return Ok(Ok(Some(ours.system)));
            }
            before.get_or_insert_with(|| newest.cloned());
            ours.number = claims.next_number(claimant.service, self.log.signatures());
            keys.claim(claimant.service, Some(&ours)).await?;
            // If two claims arrive at once, the first one counts. The next round sees it.
        }
        Err(StoreError::Unavailable(format!(
            "another {} claims the topics at the same time",
            claimant.service
        )))
    }

    /// Whether the topics stay unused until someone claims them. A reader that requires signatures knows no keys of
    /// the other services before a claim, unless its settings give them. It would accept whatever anybody has
    /// written, even an erasure, and would believe the system that the newest events name.
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

    /// Fails while an open transaction hides a part of the topics, for example while the topics are being copied
    /// here. Otherwise the absence of claims and of events that name a system would prove nothing.
    async fn nothing_is_held_back(&self, clock: &Clock) -> Result<(), StoreError> {
        let topics = self.claimant.topics.iter().copied();
        for topic in topics.chain([self.keys.topic()]) {
            let log: &dyn Log = self.log.as_anybodys().as_ref();
            let looked = readable_ends(log, topic, Duration::ZERO, clock, |_| ()).await;
            let (_, parts) = looked.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            if !parts.is_empty() {
                return Err(StoreError::Unavailable(format!(
                    "nobody has claimed the topics as far as they can be read, and {topic} is held back, {parts}: a transaction of another producer is open there"
                )));
            }
        }
        Ok(())
    }

    /// Restores the claim from before this attempt.
    async fn undo(&self, before: Option<Option<Claim>>) -> Result<(), StoreError> {
        let Some(mut before) = before else {
            return Ok(());
        };
        if let Some(claim) = &mut before {
            let service = self.claimant.service;
            let claims = self.keys.claims().await?;
            claim.number = claims.next_number(service, self.log.signatures());
        }
        self.keys
            .claim(self.claimant.service, before.as_ref())
            .await
    }

    /// Notes the number of the service's own claim, once the topic shows that claim. Before that it would be wrong:
    /// if publishing failed, the previous claim would count as an old one.
    async fn note_number(&self, number: u64) -> Result<(), StoreError> {
        let Some(signatures) = self.log.signatures() else {
            return Ok(());
        };
        let (registry, service) = (self.claimant.registry.as_ref(), self.claimant.service);
        signatures
            .note_claim_number(registry, service, number)
            .await
    }

    /// Whether an instance of the store that claimed is running.
    async fn is_alive(&self, claim: &Claim) -> Result<bool, StoreError> {
        let group = format!("{}.{}", self.claimant.projection, claim.store);
        self.log.has_members(&group).await.map_err(|error| {
            StoreError::Unavailable(format!(
                "whether the store that claimed the topics ({}) is in use cannot be told, {error}; --claim-topics takes them over",
                claim.store
            ))
        })
    }
}

/// The fingerprint for the claim. While a sealing key is being replaced, the claim keeps the old one until the
/// replacement is complete.
fn sealing_key_of(newest: Option<&Claim>, sealer: &Sealer) -> String {
    let claimed = newest.map(|claim| claim.sealing_key.clone());
    claimed
        .filter(|fingerprint| sealer.has(fingerprint))
        .unwrap_or_else(|| sealer.fingerprint())
}
