//! Dead letters in the embedded store.

use std::sync::Arc;

use async_trait::async_trait;
use redb::{ReadableTable, TableDefinition};

use super::{Durable, EmbeddedStore};
use crate::store::{DeadLetter, DeadLetterStore, StoreError};

/// (consumer, topic, partition, offset) → dead letter.
type Place = (&'static str, &'static str, i32, i64);
const LETTERS: TableDefinition<'static, Place, &'static [u8]> =
    TableDefinition::new("dead.letters");

/// (consumer, message key) → how many dead letters; none has a zero.
const KEYS: TableDefinition<'static, (&'static str, &'static str), u64> =
    TableDefinition::new("dead.letters/keys");

/// The dead letters of all of a service's consumers.
#[derive(Clone, Debug)]
pub struct EmbeddedDeadLetters {
    store: Arc<EmbeddedStore>,
}

impl EmbeddedDeadLetters {
    /// The dead letters in this file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn open(store: Arc<EmbeddedStore>) -> Result<Self, StoreError> {
        store
            .write(Durable::Yes, |transaction| {
                transaction.open_table(LETTERS)?;
                transaction.open_table(KEYS)?;
                Ok(())
            })
            .await?;
        Ok(Self { store })
    }
}

#[async_trait]
impl DeadLetterStore for EmbeddedDeadLetters {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        let codec = self.store.codec();
        let rows = letters
            .into_iter()
            .map(|letter| Ok((codec.encode(&letter.consumer, &letter)?, letter)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(LETTERS)?;
                let mut keys = transaction.open_table(KEYS)?;
                for (bytes, letter) in &rows {
                    let consumer = letter.consumer.as_str();
                    let place = (
                        consumer,
                        letter.topic.as_str(),
                        letter.partition,
                        letter.offset,
                    );
                    if table.get(place)?.is_some() {
                        continue;
                    }
                    table.insert(place, bytes.as_slice())?;
                    let key = (consumer, letter.key.as_str());
                    let count = keys.get(key)?.map_or(0, |count| count.value());
                    keys.insert(key, count + 1)?;
                }
                Ok(())
            })
            .await
    }

    async fn dead_letters(
        &self,
        consumer: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (codec, consumer) = (self.store.codec().clone(), consumer.map(str::to_owned));
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(LETTERS)?;
                let from = (consumer.as_deref().unwrap_or(""), "", i32::MIN, i64::MIN);
                let mut letters = Vec::new();
                for row in table.range::<(&str, &str, i32, i64)>(from..)?.take(limit) {
                    let (place, bytes) = row?;
                    if consumer
                        .as_deref()
                        .is_some_and(|consumer| consumer != place.value().0)
                    {
                        break;
                    }
                    letters.push(codec.decode(place.value().0, bytes.value())?);
                }
                Ok(letters)
            })
            .await
    }

    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError> {
        let consumer = consumer.to_owned();
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(KEYS)?;
                let mut keys = Vec::new();
                for row in table.range::<(&str, &str)>((consumer.as_str(), "")..)? {
                    let (key, _) = row?;
                    let (owner, key) = key.value();
                    if owner != consumer {
                        break;
                    }
                    keys.push(key.to_owned());
                }
                Ok(keys)
            })
            .await
    }

    async fn unpark(
        &self,
        consumer: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<bool, StoreError> {
        let (consumer, topic) = (consumer.to_owned(), topic.to_owned());
        let codec = self.store.codec().clone();
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(LETTERS)?;
                let mut keys = transaction.open_table(KEYS)?;
                let place = (consumer.as_str(), topic.as_str(), partition, offset);
                let letter: DeadLetter = match table.remove(place)? {
                    Some(bytes) => codec.decode(&consumer, bytes.value())?,
                    None => return Ok(false),
                };
                let key = (consumer.as_str(), letter.key.as_str());
                let count = keys.get(key)?.map_or(0, |count| count.value());
                if count > 1 {
                    keys.insert(key, count - 1)?;
                } else {
                    keys.remove(key)?;
                }
                Ok(true)
            })
            .await
    }
}
