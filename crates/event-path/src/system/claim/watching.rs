//! Looks at each claim that comes after the topics were admitted.

use tokio::sync::watch;

use super::{Attempt, BACKOFF};
use crate::data_keys::Role;

impl Attempt {
    /// Looks at each new claim: readers learn keys of the owner, and the owner puts its own claim behind one that it did not sign, for
    /// compaction would leave that one alone.
    pub(super) async fn watch_claims(&self) {
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
