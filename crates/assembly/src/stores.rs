//! What every service keeps, in whichever database the settings name: its aggregates, their audit trail, messages set aside, and
//! what the store remembers of itself.

use std::{path::Path, sync::Arc};

use secrecy::ExposeSecret;

use crate::store_settings::StoreSettings;
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
    /// The store was made with another sealing key.
    #[error(
        "the sealing key is not the one that this store was made with (fingerprint {given}, the store's is {stored}): give the service the key that it had, by TANDEM_SEALING_KEY or --sealing-key-file"
    )]
    SealingKey {
        /// The fingerprint of the key that was given.
        given: String,
        /// The fingerprint of the key that the store was made with.
        stored: String,
    },
    /// Opening was cut off by the end of the process.
    #[error("opening the store was interrupted")]
    Interrupted,
}

/// Under this name a store remembers the fingerprint of the sealing key that it was made with.
const SEALING_KEY: &str = "sealing-key";

/// Under this name an embedded store remembers the key that its records are sealed with, sealed with the sealing key.
const STORE_KEY: &str = "store-key";
/// What the store's key is sealed for.
const STORE_KEY_PLACE: &[u8] = b"store-key";

fn same_key(sealer: &Sealer, stored: String) -> Result<(), StoresError> {
    if sealer.has(&stored) {
        return Ok(());
    }
    let given = sealer.fingerprints().join(", ");
    Err(StoresError::SealingKey { given, stored })
}

/// Notes that a store needs no other sealing key than the newest: of an embedded store the key of its records is sealed anew.
///
/// # Errors
/// When the store does not answer, or its key does not open.
pub async fn settle_sealing_key(
    registry: &dyn Registry,
    sealer: &Sealer,
) -> Result<(), StoreError> {
    if let Some(sealed) = registry.recall(STORE_KEY).await? {
        let resealed = sealer
            .reseal(&sealed, STORE_KEY_PLACE)
            .map_err(|error| StoreError::Corrupt(format!("the key of the store: {error}")))?;
        if let Some(resealed) = resealed {
            registry.note(STORE_KEY, &resealed).await?;
        }
    }
    registry.note(SEALING_KEY, &sealer.fingerprint()).await
}

/// The key of an embedded store's records, and the same sealed, by what its registry remembers.
fn store_key(sealer: &Sealer, recall: &dyn Fn(&str) -> Option<String>) -> ([u8; 32], String) {
    if let Some(sealed) = recall(STORE_KEY) {
        let opened = sealer.open(&sealed, STORE_KEY_PLACE).ok();
        // Where it does not open the sealing key is another one, which is told before anything is read.
        let key = opened.and_then(|key| key.try_into().ok());
        return (key.unwrap_or_default(), sealed);
    }
    let made_with = recall(SEALING_KEY);
    let made_with = made_with.and_then(|made_with| sealer.with_fingerprint(&made_with).cloned());
    // A store from before it had a key of its own goes on with the one that was derived.
    let key = match &made_with {
        Some(old) => Codec::derived(old),
        None => sealer.fresh_key(),
    };
    let sealed = made_with
        .as_ref()
        .unwrap_or(sealer)
        .seal(&key, STORE_KEY_PLACE);
    (key, sealed)
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
            Some(uri) => {
                // A value from a file often ends with a line end.
                let uri = uri.expose_secret().trim();
                let opened = Self::mongodb(names, uri, waiting, shutdown).await?;
                let registry = &opened.0.registry;
                let given = sealer.fingerprint();
                let stored = until_answered(
                    |reason| waiting.down(reason),
                    shutdown,
                    || registry.remember(SEALING_KEY, &given),
                )
                .await
                .ok_or(StoresError::Interrupted)?;
                same_key(sealer, stored)?;
                Ok(opened)
            }
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
        let stored = registry
            .remember(SEALING_KEY, &sealer.fingerprint())
            .await?;
        same_key(sealer, stored)?;
        // Before the first record.
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
