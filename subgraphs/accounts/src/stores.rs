//! Where accounts keeps what it keeps: customers, their audit trail, and messages set aside.

use std::sync::Arc;

use tandem_kit::store::{
    AggregateStore, ChangeLog, DeadLetterStore, StoreError,
    embedded::{
        EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedStore, OpenError,
    },
    settings::StoreSettings,
};

use crate::domain::Customer;

/// The embedded store's file in the data directory.
const FILE: &str = "accounts.redb";

/// The audit trail's name.
const CHANGES: &str = "customer.changes";

/// The stores of accounts.
#[derive(Clone)]
pub struct Stores {
    /// Customers with their pending events.
    pub customers: Arc<dyn AggregateStore<Customer>>,
    /// Their audit trail.
    pub changes: Arc<dyn ChangeLog>,
    /// Messages set aside.
    pub dead_letters: Arc<dyn DeadLetterStore>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Stores")
    }
}

/// Why the stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store's file cannot be used.
    #[error(transparent)]
    File(#[from] OpenError),
    /// The store does not answer, or holds something else.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opening was cut off by the end of the process.
    #[error("opening the store was interrupted")]
    Interrupted,
}

impl Stores {
    /// Opens what the settings name.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoresError> {
        Self::embedded(settings).await
    }

    async fn embedded(settings: &StoreSettings) -> Result<Self, StoresError> {
        let path = settings.data_dir.join(FILE);
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(path))
            .await
            .map_err(|_| StoresError::Interrupted)??;
        Ok(Self {
            customers: Arc::new(EmbeddedAggregates::open(Arc::clone(&store)).await?),
            changes: Arc::new(EmbeddedChangeLog::open(Arc::clone(&store), CHANGES).await?),
            dead_letters: Arc::new(EmbeddedDeadLetters::open(store).await?),
        })
    }
}
