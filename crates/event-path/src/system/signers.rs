//! The keys whose signatures count: those that the store has pinned, those in claims, and the offsets from which
//! records must be signed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tandem_runtime::clock::Clock;

use crate::{
    claims::{Claim, Claims},
    log::{Arrival, Attention, Log, LogError, Offsets},
    signing::{Signatures, Signer},
    store::{Registry, StoreError},
};

/// How long to wait for one record.
const READ: Duration = Duration::from_secs(10);

/// Determines the signers of all services when a service starts on the topics.
pub(super) struct Signers<'a> {
    pub(super) signatures: &'a Signatures,
    pub(super) service: &'static str,
    pub(super) registry: &'a dyn Registry,
    pub(super) log: &'a Arc<dyn Log>,
    pub(super) clock: &'a Clock,
    /// Whether to accept the present keys, whatever was pinned, by an operator's order.
    pub(super) takes_over: bool,
}

impl Signers<'_> {
    /// Loads the signers that the store has pinned. Returns an error message if this service's pinned key is not the
    /// one that it was given.
    pub(super) async fn recall(&self) -> Result<Result<(), String>, StoreError> {
        if self.takes_over {
            self.signatures.believe_claims();
        }
        for service in self.signatures.services() {
            if self.takes_over && service != self.service {
                continue;
            }
            self.signatures
                .recall_claim_number(self.registry, service)
                .await?;
            let Some(mut signer) = Signatures::recall(self.registry, service).await? else {
                continue;
            };
            let mine = *self.signatures.verifying();
            if service == self.service && !signer.signs_with(&mine) {
                if !self.takes_over || signer.was_replaced(&mine) {
                    return Ok(Err(self.is_another(&signer)));
                }
                signer.replace_keys(mine, &self.ends().await?);
                Signatures::pin_anew(self.registry, service, &signer).await?;
            }
            self.signatures.trust(service, signer);
        }
        Ok(Ok(()))
    }

    fn is_another(&self, signer: &Signer) -> String {
        let service = self.service;
        let known: Vec<String> = signer.keys.iter().map(ToString::to_string).collect();
        if signer.was_replaced(self.signatures.verifying()) {
            return format!(
                "the signing key that {service} was given (its verifying key is {}) was replaced, and nothing that is signed with it counts any more: give it the one that replaced it, or a new one and --claim-topics once",
                self.signatures.verifying(),
            );
        }
        format!(
            "the signing key that {service} was given (its verifying key is {}) is not the one that its events are signed with ({}): give it that one, by TANDEM_SIGNING_KEY, --signing-key-file or as {service}.signing.key in its data directory, or --claim-topics once if that key is lost",
            self.signatures.verifying(),
            known.join(", ")
        )
    }

    /// This service's own signer. If none is pinned yet, it is pinned now: from its newest claim, or else from the
    /// present state of the log. `None` if unsigned records are accepted and there is neither. Returns an error
    /// message if another key is known.
    pub(super) async fn own(
        &self,
        claimed: Option<&Claim>,
        is_filled: bool,
    ) -> Result<Result<Option<Signer>, String>, StoreError> {
        if let Some(pinned) = self.signatures.signer(self.service) {
            return Ok(Ok(Some(pinned)));
        }
        let mine = *self.signatures.verifying();
        let claimed = claimed.and_then(Claim::signer);
        let is_claimed = claimed.is_some();
        let mut signer = match claimed {
            Some(signer) => signer,
            None if self.signatures.accepts_unsigned() => return Ok(Ok(None)),
            None => Signer {
                keys: vec![mine],
                from: self.begin(is_filled).await?,
                ..Signer::default()
            },
        };
        if !signer.signs_with(&mine) {
            if !self.takes_over || signer.was_replaced(&mine) {
                return Ok(Err(self.is_another(&signer)));
            }
            signer.replace_keys(mine, &self.ends().await?);
        }
        let pinned = Signatures::pin(self.registry, self.service, &signer).await?;
        if !pinned.signs_with(&mine) {
            return Ok(Err(self.is_another(&pinned)));
        }
        if !is_claimed {
            tracing::info!(
                service = self.service,
                from = ?pinned.from,
                "records of these topics must be signed from these offsets on"
            );
        }
        self.signatures.trust(self.service, pinned.clone());
        Ok(Ok(Some(pinned)))
    }

    /// The present ends of the service's topics, including records that open transactions hide.
    async fn ends(&self) -> Result<BTreeMap<String, Offsets>, StoreError> {
        let away = |error: LogError| StoreError::Unavailable(error.to_string());
        let mut all = BTreeMap::new();
        for topic in self.signatures.topics_of(self.service) {
            let ends = self.log.uncommitted_ends(topic).await.map_err(away)?;
            let highs = ends
                .into_iter()
                .map(|(partition, (_, high))| (partition, high));
            all.insert(topic.to_owned(), highs.collect());
        }
        Ok(all)
    }

    /// The offsets from which records must be signed, for each topic of the service. Normally these are the present
    /// ends. A new store cannot know whether there were signatures before, so it begins at the first record that this
    /// key signed.
    async fn begin(&self, is_filled: bool) -> Result<BTreeMap<String, Offsets>, StoreError> {
        let away = |error: LogError| StoreError::Unavailable(error.to_string());
        let mut begin = BTreeMap::new();
        for topic in self.signatures.topics_of(self.service) {
            let ends = self.log.topic(topic).await.map_err(away)?.ends;
            let mut from: Offsets = ends
                .iter()
                .map(|(partition, (_, high))| (*partition, *high))
                .collect();
            if !is_filled {
                let lows = ends.into_iter().filter(|(_, (low, high))| low < high);
                let lows = lows.map(|(partition, (low, _))| (partition, low)).collect();
                from.extend(self.first_signed(topic, &lows).await?);
            }
            begin.insert(topic.to_owned(), from);
        }
        Ok(begin)
    }

    /// The first record in each partition that this service signed. Partitions without such a record are omitted.
    async fn first_signed(
        &self,
        topic: &'static str,
        lows: &Offsets,
    ) -> Result<Offsets, StoreError> {
        let away = |error: LogError| StoreError::Unavailable(error.to_string());
        let mut found = Offsets::new();
        let mut left: HashSet<i32> = lows.keys().copied().collect();
        if left.is_empty() {
            return Ok(found);
        }
        let keys = [*self.signatures.verifying()];
        let tail = self.log.tail(topic, lows, Attention::Prompt);
        let tail = tail.map_err(away)?;
        while !left.is_empty() {
            let arrival = self.clock.timeout(READ, tail.next()).await;
            match arrival.map_err(|_| StoreError::Unavailable(format!("{topic} was silent")))? {
                Ok(Arrival::Record(message)) => {
                    let position = message.position;
                    if left.contains(&position.partition)
                        && self
                            .signatures
                            .judge_by(self.service, &message, &keys)
                            .is_ok()
                    {
                        left.remove(&position.partition);
                        found.insert(position.partition, position.offset);
                    }
                }
                Ok(Arrival::End(partition)) => {
                    left.remove(&partition);
                }
                Err(error) => return Err(away(error)),
            }
        }
        Ok(found)
    }

    /// Pins what the claims say about the other services. The first claim is accepted as it is. A later one must be
    /// signed by a known key.
    pub(super) async fn learn(&self, claims: &Claims) -> Result<(), StoreError> {
        for service in self.signatures.services() {
            if service == self.service {
                continue;
            }
            let claim = claims.of.get(service);
            let Some((claim, signer)) = claim.and_then(|claim| Some((claim, claim.signer()?)))
            else {
                continue;
            };
            self.signatures
                .note_claim_number(self.registry, service, claim.number)
                .await?;
            let known = self.signatures.signer(service);
            if known.as_ref() == Some(&signer) {
                continue;
            }
            let pinned = if known.is_some() || self.takes_over {
                Signatures::pin_anew(self.registry, service, &signer).await?;
                signer
            } else {
                Signatures::pin(self.registry, service, &signer).await?
            };
            tracing::info!(service, keys = ?pinned.keys, "the verifying keys are pinned");
            self.signatures.trust(service, pinned);
        }
        Ok(())
    }
}
