//! The stores of the service, each behind its port, in whichever database the settings name.

use std::{path::Path, sync::Arc};

use secrecy::ExposeSecret;
use tandem_kit::{
    sealing::Sealer,
    shutdown::Shutdown,
    store::{
        self, AggregateStore, ChangeLog, DeadLetterStore, Registry, StoreError,
        embedded::{
            Codec, EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedRegistry,
            EmbeddedStore, OpenError,
        },
        mongo::{
            ConnectError, MongoAggregates, MongoChangeLog, MongoDeadLetters, MongoRegistry,
            MongoStore,
        },
        settings::StoreSettings,
        until_answered,
    },
    web::actuator::HealthReporter,
};

use crate::{
    audit,
    domain::Order,
    replica::{ReplicaStore, embedded::EmbeddedReplica, mongo::MongoReplica},
};

/// The embedded store's file in the data directory.
const FILE: &str = "orders.redb";
/// The database in MongoDB.
const DATABASE: &str = "orders";
/// The collection of messages set aside.
const DEAD_LETTERS: &str = "dead.letters";

/// Why the stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store's file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection string does not fit.
    #[error("--mongodb-uri: {0}")]
    Connect(#[from] ConnectError),
    /// Tables or indexes could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opening was cut off by the end of the process.
    #[error("opening the store was interrupted")]
    Interrupted,
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
    /// What the store remembers of itself.
    pub registry: Arc<dyn Registry>,
    /// The store's own name.
    pub identity: String,
}

impl Stores {
    /// Opens what the settings name. A MongoDB that is away is waited for; `waiting` tells why meanwhile.
    ///
    /// # Errors
    /// When the file cannot be used, or the connection string does not fit.
    pub async fn open(
        settings: &StoreSettings,
        sealer: &Sealer,
        waiting: &HealthReporter,
        shutdown: &Shutdown,
    ) -> Result<Self, StoresError> {
        match &settings.mongodb_uri {
            Some(uri) => Self::mongodb(uri.expose_secret(), waiting, shutdown).await,
            None => Self::embedded(&settings.data_dir, sealer).await,
        }
    }

    /// Opens the embedded store in a directory, or makes it. What is stored is sealed with a key derived from `sealer`'s.
    ///
    /// # Errors
    /// See [`StoresError`].
    pub async fn embedded(directory: &Path, sealer: &Sealer) -> Result<Self, StoresError> {
        let path = directory.join(FILE);
        let codec = Codec::sealed(sealer);
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(path, codec))
            .await
            .map_err(|_| StoresError::Interrupted)??;
        let registry = EmbeddedRegistry::open(Arc::clone(&store)).await?;
        Ok(Self {
            orders: Arc::new(EmbeddedAggregates::<Order>::open(Arc::clone(&store)).await?),
            replica: Arc::new(EmbeddedReplica::open(Arc::clone(&store)).await?),
            changes: Arc::new(
                EmbeddedChangeLog::open(Arc::clone(&store), audit::COLLECTION).await?,
            ),
            dead_letters: Arc::new(EmbeddedDeadLetters::open(store).await?),
            identity: store::identity(&registry).await?,
            registry: Arc::new(registry),
        })
    }

    async fn mongodb(
        uri: &str,
        waiting: &HealthReporter,
        shutdown: &Shutdown,
    ) -> Result<Self, StoresError> {
        let store = MongoStore::connect(uri, DATABASE).await?;
        let orders = MongoAggregates::<Order>::new(store.clone());
        let changes = MongoChangeLog::new(&store, audit::COLLECTION);
        let dead_letters = MongoDeadLetters::new(&store, DEAD_LETTERS);
        let registry = MongoRegistry::new(&store);
        let identity = until_answered(waiting, shutdown, || async {
            orders.prepare().await?;
            changes.prepare().await?;
            dead_letters.prepare().await?;
            store::identity(&registry).await
        })
        .await
        .ok_or(StoresError::Interrupted)?;
        Ok(Self {
            orders: Arc::new(orders),
            replica: Arc::new(MongoReplica::new(store)),
            changes: Arc::new(changes),
            dead_letters: Arc::new(dead_letters),
            registry: Arc::new(registry),
            identity,
        })
    }
}
