//! What every service keeps, in whichever database the settings name: its aggregates, their audit trail, messages set aside, and
//! what the store remembers of itself.

use std::{path::Path, sync::Arc};

use secrecy::ExposeSecret;

use super::{
    AggregateStore, ChangeLog, DeadLetterStore, Registry, StoreError,
    embedded::{
        Codec, EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedRegistry,
        EmbeddedStore, OpenError,
    },
    identity,
    mongo::{
        ConnectError, MongoAggregates, MongoChangeLog, MongoDeadLetters, MongoRegistry, MongoStore,
    },
    settings::StoreSettings,
    until_answered,
};
use crate::{
    aggregate::Aggregate, sealing::Sealer, shutdown::Shutdown, web::actuator::HealthReporter,
};

/// The collection of messages set aside in MongoDB.
const DEAD_LETTERS: &str = "dead.letters";

/// What a service's stores are called.
#[derive(Clone, Copy, Debug)]
pub struct StoreNames {
    /// The database in MongoDB, and the embedded store's file in the data directory, without its extension.
    pub database: &'static str,
    /// The audit trail.
    pub changes: &'static str,
}

/// The stores of a service whose aggregates are these. Clones share them.
#[derive(Clone)]
pub struct Stores<A> {
    /// Aggregates with their pending events.
    pub aggregates: Arc<dyn AggregateStore<A>>,
    /// Their audit trail.
    pub changes: Arc<dyn ChangeLog>,
    /// Messages set aside.
    pub dead_letters: Arc<dyn DeadLetterStore>,
    /// What the store remembers of itself.
    pub registry: Arc<dyn Registry>,
    /// The store's own name.
    pub identity: String,
}

/// The database that they are in, for what else a service keeps.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file.
    Embedded(Arc<EmbeddedStore>),
    /// MongoDB.
    Mongo(MongoStore),
}

/// Why the stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store's file cannot be used.
    #[error(transparent)]
    File(#[from] OpenError),
    /// The connection string does not fit.
    #[error("--mongodb-uri: {0}")]
    Connect(#[from] ConnectError),
    /// The store does not answer, or holds something else.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opening was cut off by the end of the process.
    #[error("opening the store was interrupted")]
    Interrupted,
}

impl<A: Aggregate> Stores<A> {
    /// Opens what the settings name. A MongoDB that is away is waited for; `waiting` tells why meanwhile. What is stored in a file is
    /// sealed with a key derived from `sealer`'s.
    ///
    /// # Errors
    /// When the file cannot be used, or the connection string does not fit.
    pub async fn open(
        names: StoreNames,
        settings: &StoreSettings,
        sealer: &Sealer,
        waiting: &HealthReporter,
        shutdown: &Shutdown,
    ) -> Result<(Self, Database), StoresError> {
        match &settings.mongodb_uri {
            Some(uri) => Self::mongodb(names, uri.expose_secret(), waiting, shutdown).await,
            None => Self::embedded(names, &settings.data_dir, sealer).await,
        }
    }

    /// Opens the embedded store in a directory, or makes it.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn embedded(
        names: StoreNames,
        directory: &Path,
        sealer: &Sealer,
    ) -> Result<(Self, Database), StoresError> {
        let path = directory.join(names.database).with_extension("redb");
        let codec = Codec::sealed(sealer);
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(path, codec))
            .await
            .map_err(|_| StoresError::Interrupted)??;
        let shared = || Arc::clone(&store);
        let registry = EmbeddedRegistry::open(shared()).await?;
        let stores = Self {
            aggregates: Arc::new(EmbeddedAggregates::open(shared()).await?),
            changes: Arc::new(EmbeddedChangeLog::open(shared(), names.changes).await?),
            dead_letters: Arc::new(EmbeddedDeadLetters::open(shared()).await?),
            identity: identity(&registry).await?,
            registry: Arc::new(registry),
        };
        Ok((stores, Database::Embedded(store)))
    }

    async fn mongodb(
        names: StoreNames,
        uri: &str,
        waiting: &HealthReporter,
        shutdown: &Shutdown,
    ) -> Result<(Self, Database), StoresError> {
        let store = MongoStore::connect(uri, names.database).await?;
        let aggregates = MongoAggregates::<A>::new(store.clone());
        let changes = MongoChangeLog::new(&store, names.changes);
        let dead_letters = MongoDeadLetters::new(&store, DEAD_LETTERS);
        let registry = MongoRegistry::new(&store);
        let identity = until_answered(waiting, shutdown, || async {
            aggregates.prepare().await?;
            changes.prepare().await?;
            dead_letters.prepare().await?;
            identity(&registry).await
        })
        .await
        .ok_or(StoresError::Interrupted)?;
        let stores = Self {
            aggregates: Arc::new(aggregates),
            changes: Arc::new(changes),
            dead_letters: Arc::new(dead_letters),
            registry: Arc::new(registry),
            identity,
        };
        Ok((stores, Database::Mongo(store)))
    }
}
