//! The stores of the service, each behind its port, in whichever database the settings name.

use std::sync::Arc;

use tandem_kit::{
    shutdown::Shutdown,
    store::{
        AggregateStore, ChangeLog, DeadLetterStore, StoreError,
        embedded::{
            EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedStore, OpenError,
        },
        settings::StoreSettings,
    },
};

use crate::{
    audit,
    domain::Order,
    replica::{ReplicaStore, embedded::EmbeddedReplica},
};

/// The embedded store's file in the data directory.
const FILE: &str = "orders.redb";

/// Why the stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store's file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Tables or indexes could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opening was broken off.
    #[error("opening the store was broken off")]
    BrokenOff,
}

/// What the service keeps. Clones share it.
#[derive(Clone)]
pub struct Stores {
    /// Orders with their outbox.
    pub orders: Arc<dyn AggregateStore<Order>>,
    /// Customers as orders knows them.
    pub replica: Arc<dyn ReplicaStore>,
    /// The audit trail of orders.
    pub changes: Arc<dyn ChangeLog>,
    /// Messages set aside.
    pub dead_letters: Arc<dyn DeadLetterStore>,
}

impl Stores {
    /// Opens the stores that the settings name.
    ///
    /// # Errors
    /// See [`StoresError`].
    pub async fn open(settings: &StoreSettings, _shutdown: &Shutdown) -> Result<Self, StoresError> {
        Self::embedded(&settings.data_dir).await
    }

    /// Opens the embedded store in a directory, or makes it.
    ///
    /// # Errors
    /// See [`StoresError`].
    pub async fn embedded(directory: &std::path::Path) -> Result<Self, StoresError> {
        let path = directory.join(FILE);
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(path))
            .await
            .map_err(|_| StoresError::BrokenOff)??;
        Ok(Self {
            orders: Arc::new(EmbeddedAggregates::<Order>::open(Arc::clone(&store)).await?),
            replica: Arc::new(EmbeddedReplica::open(Arc::clone(&store)).await?),
            changes: Arc::new(
                EmbeddedChangeLog::open(Arc::clone(&store), audit::COLLECTION).await?,
            ),
            dead_letters: Arc::new(EmbeddedDeadLetters::open(store).await?),
        })
    }
}
