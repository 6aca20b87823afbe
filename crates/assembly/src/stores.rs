//! The stores of every service, in the database that the settings name: aggregates, their audit trail, dead letters,
//! and the store's registry.

use std::{path::Path, sync::Arc};

use secrecy::ExposeSecret;

use crate::{
    sealing_keys::{MissingKey, STORE_KEY, admit, store_key},
    store_settings::StoreSettings,
};
use tandem_event_path::{
    sealing::Sealer,
    store::{
        AggregateStore, ChangeLog, DeadLetterStore, Registry, StoreError, identity, until_answered,
    },
};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::{clock::Clock, shutdown::Shutdown};
use tandem_service::web::actuator::HealthReporter;
use tandem_store_mongodb::{
    ConnectError, MongoAggregates, MongoChangeLog, MongoDeadLetters, MongoRegistry, MongoStore,
};
use tandem_store_redb::{
    Codec, EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedRegistry,
    EmbeddedStore, OpenError,
};

/// The MongoDB collection of dead letters.
const DEAD_LETTERS: &str = "dead.letters";

/// The names of a service's stores.
#[derive(Clone, Copy, Debug)]
pub struct StoreNames {
    /// The database in MongoDB. It is also the name of the embedded store's file in the data directory, without
    /// extension.
    pub database: &'static str,
    /// The name of the audit trail.
    pub changes: &'static str,
}

/// The stores of a service with this kind of aggregate. Clones share them.
#[derive(Clone)]
pub struct Stores<A> {
    /// Aggregates with their pending events.
    pub aggregates: Arc<dyn AggregateStore<A>>,
    /// The audit trail of the aggregates.
    pub changes: Arc<dyn ChangeLog>,
    /// Dead letters.
    pub dead_letters: Arc<dyn DeadLetterStore>,
    /// What the store remembers about itself.
    pub registry: Arc<dyn Registry>,
    /// The identity of the store.
    pub identity: String,
}

/// The database that holds the stores, for further data of a service.
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
    /// The connection string is invalid.
    #[error("--mongodb-uri: {0}")]
    Connect(#[from] ConnectError),
    /// The store does not answer, or has unexpected content.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store may hold data that was sealed with a key that the service does not have.
    #[error(transparent)]
    SealingKey(#[from] MissingKey),
    /// Shutdown interrupted the opening.
    #[error("opening the store was interrupted")]
    Interrupted,
}

impl<A: Aggregate> Stores<A> {
    /// Opens the stores that the settings name. Waits for a MongoDB that is unavailable, and reports the reason to
    /// `waiting`. An embedded store is sealed with its own key, which `sealer` seals.
    ///
    /// # Errors
    /// If the file cannot be used, or the connection string is invalid.
    pub async fn open(
        names: StoreNames,
        settings: &StoreSettings,
        sealer: &Sealer,
        waiting: &HealthReporter,
        shutdown: &Shutdown,
    ) -> Result<(Self, Database), StoresError> {
        match &settings.mongodb_uri {
            Some(uri) => {
                // A value from a file often ends with a line break.
                let uri = uri.expose_secret().trim();
                let opened = Self::mongodb(names, uri, waiting, shutdown).await?;
                let registry = &opened.0.registry;
                let admitted = until_answered(
                    |reason| waiting.down(reason),
                    shutdown,
                    || admit(registry.as_ref(), sealer),
                )
                .await
                .ok_or(StoresError::Interrupted)?;
                admitted?;
                Ok(opened)
            }
            None => Self::embedded(names, &settings.data_dir, sealer).await,
        }
    }

    /// Opens the embedded store in a directory, or creates it.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub async fn embedded(
        names: StoreNames,
        directory: &Path,
        sealer: &Sealer,
    ) -> Result<(Self, Database), StoresError> {
        let path = directory.join(names.database).with_extension("redb");
        let opener = sealer.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let mut sealed = String::new();
            let store = EmbeddedStore::open_with(path, |recall| {
                let key;
                (key, sealed) = store_key(&opener, recall);
                Codec::with_key(&key)
            });
            store.map(|store| (store, sealed))
        });
        let (store, sealed) = opening.await.map_err(|_| StoresError::Interrupted)??;
        let shared = || Arc::clone(&store);
        let registry = EmbeddedRegistry::open(shared()).await?;
        admit(&registry, sealer).await??;
        // This must happen before the first record.
        if registry.remember(STORE_KEY, &sealed).await? != sealed {
            let reason = "the key of the store was not read when it was opened".to_owned();
            return Err(StoreError::Corrupt(reason).into());
        }
        let stores = Self {
            aggregates: Arc::new(EmbeddedAggregates::open(shared()).await?),
            changes: Arc::new(EmbeddedChangeLog::open(shared(), names.changes).await?),
            dead_letters: Arc::new(EmbeddedDeadLetters::open(shared()).await?),
            identity: identity(&registry, &Clock::default()).await?,
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
        let identity = until_answered(
            |reason| waiting.down(reason),
            shutdown,
            || async {
                aggregates.prepare().await?;
                changes.prepare().await?;
                dead_letters.prepare().await?;
                identity(&registry, shutdown.clock()).await
            },
        )
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
