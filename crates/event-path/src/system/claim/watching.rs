//! Judges each claim that is published after the topics were admitted.

use tokio::sync::watch;

use super::{Attempt, BACKOFF};
use crate::{
    claims::{Claim, Claims},
    data_keys::Role,
    store::StoreError,
};

impl Attempt {
    /// Judges each new claim. Readers learn the owner's keys. The owner publishes its own claim again behind one that
    /// does not count, because compaction would keep only the newest one.
    pub(super) async fn watch_claims(&self) {
        let Some(signers) = self.signers() else {
            return;
        };
        let (mut seen, mut own): (usize, Option<Claim>) = (0, None);
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
                        signers.learn(&claims).await?;
                        return Ok(None);
                    }
                    self.put_own_last(&claims, own.as_ref()).await
                },
                |error, pause| {
                    tracing::warn!(%error, ?pause, "a claim of the topics cannot be looked at yet; trying again");
                },
            );
            let looked = tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                looked = looked => looked,
            };
            own = looked.flatten().or(own);
            if let Some(look) = look {
                signers.signatures.looked(look);
            }
        }
    }

    /// Returns the service's own claim, and publishes it again if it is not the last valid one on the topic. It may
    /// be followed by a forged claim, a repeated old claim, or the tombstone of a claim. `own` is the result of the
    /// last call.
    async fn put_own_last(
        &self,
        claims: &Claims,
        own: Option<&Claim>,
    ) -> Result<Option<Claim>, StoreError> {
        let service = self.claimant.service;
        let Some(mut ours) = claims.of.get(service).or(own).cloned() else {
            return Ok(None);
        };
        if claims.of.contains_key(service) {
            self.note_number(ours.number).await?;
        } else {
            ours.number = claims.next_number(service, self.log.signatures());
        }
        if !self.keys.is_last_claim(service, &ours) {
            self.keys.claim(service, Some(&ours)).await?;
        }
        Ok(Some(ours))
    }
}

/// Waits until another look is requested. Waits for ever if `looks` is `None` or closed.
async fn changed(looks: Option<&mut watch::Receiver<u64>>) {
    if let Some(looks) = looks
        && looks.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
