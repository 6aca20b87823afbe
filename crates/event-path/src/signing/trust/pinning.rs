//! What a store remembers about the services that sign. The first keys that it sees of a service are pinned.

use super::{Signatures, Signer};
use crate::store::{Registry, StoreError};

/// The name under which a store remembers a service's verifying keys.
fn name(service: &str) -> String {
    format!("signer/{service}")
}

/// The name under which a store remembers the number of a service's newest claim.
fn number_name(service: &str) -> String {
    format!("claim-number/{service}")
}

impl Signatures {
    /// What a store has pinned for a service.
    ///
    /// # Errors
    /// When the store does not answer, or its entry cannot be read.
    pub(crate) async fn recall(
        registry: &dyn Registry,
        service: &str,
    ) -> Result<Option<Signer>, StoreError> {
        let text = registry.recall(&name(service)).await?;
        text.map(|text| parse(service, &text)).transpose()
    }

    /// Pins a service in a store, unless something is pinned. Returns what is pinned then.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub(crate) async fn pin(
        registry: &dyn Registry,
        service: &str,
        signer: &Signer,
    ) -> Result<Signer, StoreError> {
        let pinned = registry.remember(&name(service), &text(signer)?).await?;
        parse(service, &pinned)
    }

    /// Loads the number of a service's newest claim from a store.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub(crate) async fn recall_claim_number(
        &self,
        registry: &dyn Registry,
        service: &str,
    ) -> Result<(), StoreError> {
        let Some(text) = registry.recall(&number_name(service)).await? else {
            return Ok(());
        };
        let number = text.parse().map_err(|error| {
            let name = number_name(service);
            StoreError::Corrupt(format!("{name} cannot be read: {error}"))
        })?;
        self.know_claim_number(service, number);
        Ok(())
    }

    /// Stores the number of a service's newest claim, if it is higher than the known one.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub(crate) async fn note_claim_number(
        &self,
        registry: &dyn Registry,
        service: &str,
        number: u64,
    ) -> Result<(), StoreError> {
        if number > self.claim_number(service) {
            let name = number_name(service);
            registry.note(&name, &number.to_string()).await?;
            self.know_claim_number(service, number);
        }
        Ok(())
    }

    /// Pins a service, replacing what was pinned.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub(crate) async fn pin_anew(
        registry: &dyn Registry,
        service: &str,
        signer: &Signer,
    ) -> Result<(), StoreError> {
        registry.note(&name(service), &text(signer)?).await
    }
}

fn text(signer: &Signer) -> Result<String, StoreError> {
    serde_json::to_string(signer).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn parse(service: &str, text: &str) -> Result<Signer, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("{} cannot be read: {error}", name(service))))
}
