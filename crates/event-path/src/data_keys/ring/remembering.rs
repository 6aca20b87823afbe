//! Remembers in the service's store how far the topic of keys was read, so that the next start begins there.
//!
//! What a start may conclude before it has read the older part again rests on one rule. For every tombstone in the
//! older part, either the store knew of the erasure before the progress was noted, or the subject is named in the
//! note as doubtful. So a key that is stored at the start and not doubtful belongs to no subject that the older part
//! shows as erased, and a subject that is neither stored nor doubtful has no tombstone there. (A deposed primary may
//! take an erasure back before a majority has it. Such a store shows the person itself until the event is applied
//! again, whatever the topic of keys says.)

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use tandem_model::message::Message;

use super::KeyRing;
use crate::{
    claims::{CLAIM, Claim},
    data_keys::keys_read::KeysRead,
    log::{Attention, LogError, TopicState, records_at},
    signing::Signatures,
    store::{Registry, StoreError},
};

/// How often the progress is noted. The next start reads first what arrived after the last note.
const NOTE: Duration = Duration::from_secs(10);
/// How long it may take to read the last records again.
const READ: Duration = Duration::from_secs(10);
/// The page size for queries to the store.
const PAGE: usize = 1_000;
/// The most doubtful subjects that are remembered. While there are more, progress is not noted: the next start begins
/// at the last note, or reads the whole topic first.
const MOST_DOUBTFUL: usize = 1_000;

/// Where a ring remembers how far it has read the topic.
#[derive(Clone)]
pub struct KeyMemory {
    /// The registry of the service's store.
    pub registry: Arc<dyn Registry>,
    /// Whether the service takes topics over by an operator's order. Then the remembered progress is deleted.
    pub takes_over: bool,
}

/// The registry entry of the progress on a topic of keys.
fn name(topic: &str) -> String {
    format!("keys-read/{topic}")
}

impl KeyRing {
    /// Finds the position at which to begin: behind the remembered progress, if the topic is the same.
    pub(super) async fn recall(&self, state: &TopicState) -> Result<(), LogError> {
        let is_begun = *self.0.is_begun.borrow();
        if is_begun {
            return Ok(());
        }
        if let Some((read, claims)) = self.remembered(state).await? {
            self.held().begin_behind(&read, claims, &state.ends);
            self.start_older();
        }
        self.0.is_begun.send_replace(true);
        Ok(())
    }

    /// The remembered progress and the claims up to there, if the topic is the same.
    async fn remembered(
        &self,
        state: &TopicState,
    ) -> Result<Option<(KeysRead, Vec<Message>)>, LogError> {
        let signing = self.0.signing.as_ref();
        let Some(memory) = signing.and_then(|signing| signing.memory.as_ref()) else {
            return Ok(None);
        };
        let name = name(self.0.topic);
        let away = |error: StoreError| {
            LogError::Unreachable(format!(
                "how far it was read before is not known yet: {error}"
            ))
        };
        if memory.takes_over {
            memory.registry.forget(&name).await.map_err(away)?;
            return Ok(None);
        }
        let told = match memory.registry.recall(&name).await {
            Err(StoreError::Corrupt(reason)) => return Ok(self.begins_anew(&reason)),
            told => told.map_err(away)?,
        };
        let Some(told) = told else {
            return Ok(None);
        };
        let Some((read, claims)) = KeysRead::parse(&told, self.0.topic) else {
            return Ok(self.begins_anew("what is remembered of it cannot be read"));
        };
        if let Some(reason) = read.misfit(state) {
            return Ok(self.begins_anew(&reason));
        }
        let places = read.places();
        let tail = self.0.log.tail(self.0.topic, &places, Attention::Prompt)?;
        let found = records_at(tail.as_ref(), &places);
        let found = self.0.shutdown.clock().timeout(READ, found).await;
        let found =
            found.map_err(|_| LogError::Unavailable(format!("{} was silent", self.0.topic)))??;
        if let Some(reason) = read.contradiction(&found) {
            return Ok(self.begins_anew(&reason));
        }
        tracing::info!(
            topic = self.0.topic,
            from = ?places,
            "the topic of keys is read from where it was read to before, and what is before that afterwards"
        );
        Ok(Some((read, claims)))
    }

    /// Logs why the remembered progress is not used. Always returns `None`.
    fn begins_anew<T>(&self, why: &str) -> Option<T> {
        tracing::info!(
            topic = self.0.topic,
            why,
            "the topic of keys is read from its beginning"
        );
        None
    }

    /// Notes the progress regularly in the background, until the service stops. The topics must be known to belong to
    /// this system.
    pub fn remember(&self) {
        let signing = self.0.signing.as_ref();
        let Some(memory) = signing.and_then(|signing| signing.memory.clone()) else {
            return;
        };
        let (ring, stop) = (self.clone(), self.0.shutdown.clone());
        self.0.shutdown.spawn(async move {
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = ring.keep_noting(memory.registry.as_ref()) => {}
            }
        });
    }

    async fn keep_noting(&self, registry: &dyn Registry) {
        let mut doubtful = BTreeSet::new();
        let mut noted = None;
        loop {
            if let Err(error) = self.note(registry, &mut doubtful, &mut noted).await {
                tracing::debug!(%error, "how far the topic of keys was read cannot be noted now; trying again");
            }
            self.0.shutdown.clock().sleep(NOTE).await;
        }
    }

    /// Notes the progress if it has changed. `doubtful` holds the subjects about which the topic has shown something
    /// that the store did not know yet.
    async fn note(
        &self,
        registry: &dyn Registry,
        doubtful: &mut BTreeSet<String>,
        noted: &mut Option<KeysRead>,
    ) -> Result<(), StoreError> {
        let was_replaced = *self.0.replaced.borrow() > 0;
        if was_replaced {
            // Part of the state belongs to another topic. The next start reads the whole present topic.
            return Ok(());
        }
        let progress = self.held().progress();
        let Some(progress) = progress else {
            return Ok(());
        };
        let shown = progress.to_be_proven.into_iter();
        doubtful.extend(shown.map(String::from));
        self.drop_proven(doubtful).await?;
        if doubtful.len() > MOST_DOUBTFUL {
            return Ok(());
        }
        let claims = self.counting(progress.claims);
        let read = KeysRead::new(progress.identity, progress.last, &claims, doubtful.clone());
        if noted.as_ref() == Some(&read) {
            return Ok(());
        }
        let text = serde_json::to_string(&read);
        let text = text.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        registry.note(&name(self.0.topic), &text).await?;
        *noted = Some(read);
        Ok(())
    }

    /// Drops the subjects that the store knows to be erased. Stops when more of the others are left than can be
    /// remembered.
    async fn drop_proven(&self, doubtful: &mut BTreeSet<String>) -> Result<(), StoreError> {
        let all: Vec<String> = doubtful.iter().cloned().collect();
        let mut left = 0;
        for page in all.chunks(PAGE) {
            let asked: HashSet<String> = page.iter().cloned().collect();
            let erased = self.0.stored.stored(&asked).await?.erased;
            left += asked.len().saturating_sub(erased.len());
            doubtful.retain(|subject| !erased.contains(subject));
            if left > MOST_DOUBTFUL {
                break;
            }
        }
        Ok(())
    }

    /// Drops claims that are older than the claim number that the store knows for their service. They never count
    /// again, and each start would report them. The last claim of each key stays, because it must be on the topic.
    fn counting(&self, claims: Vec<Message>) -> Vec<Message> {
        let Some(signing) = self.0.signing.as_ref() else {
            return claims;
        };
        let mut counting = Vec::with_capacity(claims.len());
        let mut rest = claims.as_slice();
        while let [claim, later @ ..] = rest {
            let is_last = later.iter().all(|later| later.key != claim.key);
            if is_last || !is_old(claim, &signing.signatures) {
                counting.push(claim.clone());
            }
            rest = later;
        }
        counting
    }
}

/// Whether a claim has a lower number than the known one of its service.
fn is_old(message: &Message, signatures: &Signatures) -> bool {
    let key = message.key.as_deref();
    let service = key.and_then(|key| key.strip_prefix(CLAIM));
    let says = message.payload.as_deref();
    let claim = says.and_then(|says| serde_json::from_slice::<Claim>(says).ok());
    let claim = service.zip(claim);
    claim.is_some_and(|(service, claim)| claim.number < signatures.claim_number(service))
}
