//! Where a service's tests open stores for the suite: a file, or a database on a server.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;

use super::{Example, Fixture};
use tandem_event_path::sealing::Sealer;
use tandem_event_path::store::{AggregateStore, ChangeLog, DeadLetterStore, Registry};
use tandem_store_mongodb::{
    MongoAggregates, MongoChangeLog, MongoDeadLetters, MongoRegistry, MongoStore,
};
use tandem_store_redb::{
    Codec, EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedRegistry,
    EmbeddedStore,
};

const CHANGES: &str = "contract.changes";

/// A file of the embedded store, in a directory that is removed when `T` is dropped.
#[derive(Debug)]
pub struct File<T> {
    pub path: PathBuf,
    pub directory: T,
}

impl<T> File<T> {
    fn open(&self) -> Arc<EmbeddedStore> {
        EmbeddedStore::open(&self.path, Codec::sealed(&Sealer::new(&[7; 32]))).unwrap()
    }
}

#[async_trait]
impl<A: Example, T: std::fmt::Debug + Send + Sync> Fixture<A> for File<T> {
    async fn aggregates(&self) -> Arc<dyn AggregateStore<A>> {
        Arc::new(EmbeddedAggregates::open(self.open()).await.unwrap())
    }

    async fn change_log(&self) -> Arc<dyn ChangeLog> {
        Arc::new(EmbeddedChangeLog::open(self.open(), CHANGES).await.unwrap())
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(EmbeddedDeadLetters::open(self.open()).await.unwrap())
    }

    async fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(EmbeddedRegistry::open(self.open()).await.unwrap())
    }
}

/// A database on a MongoDB server.
#[derive(Clone, Debug)]
pub struct Database {
    pub uri: String,
    pub name: String,
}

impl Database {
    pub async fn store(&self) -> MongoStore {
        MongoStore::connect(&self.uri, &self.name).await.unwrap()
    }
}

#[async_trait]
impl<A: Example> Fixture<A> for Database {
    async fn aggregates(&self) -> Arc<dyn AggregateStore<A>> {
        let store = MongoAggregates::new(self.store().await);
        store.prepare().await.unwrap();
        Arc::new(store)
    }

    async fn change_log(&self) -> Arc<dyn ChangeLog> {
        let log = MongoChangeLog::new(&self.store().await, CHANGES);
        log.prepare().await.unwrap();
        Arc::new(log)
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        let letters = MongoDeadLetters::new(&self.store().await, "dead.letters");
        letters.prepare().await.unwrap();
        Arc::new(letters)
    }

    async fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(MongoRegistry::new(&self.store().await))
    }
}
