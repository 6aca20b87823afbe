//! What the embedded store remembers about itself.

use std::sync::Arc;

use async_trait::async_trait;
use redb::ReadableTable;

use super::{
    committer::Durable,
    embedded_store::{EmbeddedStore, REGISTRY},
};
use tandem_event_path::store::{Registry, StoreError};

/// A table of names and values.
#[derive(Clone, Debug)]
pub struct EmbeddedRegistry {
    store: Arc<EmbeddedStore>,
}

impl EmbeddedRegistry {
    /// The registry in this file. It is created if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn open(store: Arc<EmbeddedStore>) -> Result<Self, StoreError> {
        store
            .write(Durable::Yes, |transaction| {
                transaction.open_table(REGISTRY)?;
                Ok(())
            })
            .await?;
        Ok(Self { store })
    }
}

#[async_trait]
impl Registry for EmbeddedRegistry {
    async fn recall(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.store.read_here(|transaction| {
            let table = transaction.open_table(REGISTRY)?;
            Ok(table.get(name)?.map(|value| value.value().to_owned()))
        })
    }

    async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(REGISTRY)?;
                if let Some(known) = table.get(name.as_str())? {
                    return Ok(known.value().to_owned());
                }
                table.insert(name.as_str(), value.as_str())?;
                Ok(value.clone())
            })
            .await
    }

    async fn note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(REGISTRY)?;
                table.insert(name.as_str(), value.as_str())?;
                Ok(())
            })
            .await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(REGISTRY)?;
                table.remove(name.as_str())?;
                Ok(())
            })
            .await
    }

    async fn recall_all(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.store.read_here(|transaction| {
            let table = transaction.open_table(REGISTRY)?;
            let mut found = Vec::new();
            for entry in table.range(prefix..)? {
                let (name, value) = entry?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                found.push((name.value().to_owned(), value.value().to_owned()));
            }
            Ok(found)
        })
    }
}
