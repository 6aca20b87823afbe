//! Dead letters in the embedded store.

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::{Codec, Durable, EmbeddedStore, WorkError};
use tandem_event_path::store::{
    DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId, StoreError,
};

/// (consumer, topic, partition, offset) → dead letter.
type Place = (&'static str, &'static str, i32, i64);
const LETTERS: TableDefinition<'static, Place, &'static [u8]> =
    TableDefinition::new("dead.letters");

/// (consumer, message key) → number of dead letters; never zero.
const KEYS: TableDefinition<'static, (&'static str, &'static str), u64> =
    TableDefinition::new("dead.letters/keys");

/// (consumer, message key, topic, partition, offset) of each dead letter.
type OfKey = (&'static str, &'static str, &'static str, i32, i64);
const BY_KEY: TableDefinition<'static, OfKey, ()> = TableDefinition::new("dead.letters/by-key");

/// Greater than every text that names something in these tables.
const LAST: &str = "\u{10ffff}";

/// The dead letters of all consumers of a service.
#[derive(Clone, Debug)]
pub struct EmbeddedDeadLetters {
    store: Arc<EmbeddedStore>,
}

impl EmbeddedDeadLetters {
    /// The dead letters in this file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn open(store: Arc<EmbeddedStore>) -> Result<Self, StoreError> {
        store
            .write(Durable::Yes, {
                let codec = store.codec().clone();
                move |transaction| make_tables(transaction, &codec)
            })
            .await?;
        Ok(Self { store })
    }
}

/// Creates missing tables. A file of an earlier version has no table by key, so that one is filled.
fn make_tables(transaction: &WriteTransaction, codec: &Codec) -> Result<(), WorkError> {
    transaction.open_table(KEYS)?;
    let letters = transaction.open_table(LETTERS)?;
    let mut by_key = transaction.open_table(BY_KEY)?;
    if !by_key.is_empty()? {
        return Ok(());
    }
    for row in letters.iter()? {
        let (place, bytes) = row?;
        let letter: DeadLetter = codec.decode(place.value().0, bytes.value())?;
        by_key.insert(of_key(&letter), ())?;
    }
    Ok(())
}

fn of_key(letter: &DeadLetter) -> (&str, &str, &str, i32, i64) {
    (
        letter.consumer.as_str(),
        letter.key.as_str(),
        letter.topic.as_str(),
        letter.partition,
        letter.offset,
    )
}

/// Removes one letter from all tables. Returns whether it existed.
fn remove(
    transaction: &WriteTransaction,
    codec: &Codec,
    place: (&str, &str, i32, i64),
) -> Result<bool, WorkError> {
    let letter: DeadLetter = match transaction.open_table(LETTERS)?.remove(place)? {
        Some(bytes) => codec.decode(place.0, bytes.value())?,
        None => return Ok(false),
    };
    transaction.open_table(BY_KEY)?.remove(of_key(&letter))?;
    let mut keys = transaction.open_table(KEYS)?;
    let key = (place.0, letter.key.as_str());
    let count = keys.get(key)?.map_or(0, |count| count.value());
    if count > 1 {
        keys.insert(key, count - 1)?;
    } else {
        keys.remove(key)?;
    }
    Ok(true)
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
                let mut by_key = transaction.open_table(BY_KEY)?;
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
                    by_key.insert(of_key(letter), ())?;
                }
                Ok(())
            })
            .await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        let codec = self.store.codec().clone();
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(LETTERS)?;
                let by_key = transaction.open_table(BY_KEY)?;
                let mut letters = Vec::new();
                let mut from = Bound::Unbounded;
                if let Some(consumer) = filter.consumer.as_deref() {
                    from = Bound::Included((consumer, "", i32::MIN, i64::MIN));
                }
                if let Some(after) = &after {
                    let place = (
                        after.consumer.as_str(),
                        after.topic.as_str(),
                        after.partition,
                        after.offset,
                    );
                    if filter
                        .consumer
                        .as_deref()
                        .is_none_or(|consumer| consumer <= place.0)
                    {
                        from = Bound::Excluded(place);
                    }
                }
                for row in table.range::<(&str, &str, i32, i64)>((from, Bound::Unbounded))? {
                    if letters.len() >= limit {
                        break;
                    }
                    let (place, bytes) = row?;
                    let (consumer, topic, partition, offset) = place.value();
                    if filter
                        .consumer
                        .as_deref()
                        .is_some_and(|only| only != consumer)
                    {
                        break;
                    }
                    if let Some(key) = filter.key.as_deref()
                        && by_key
                            .get((consumer, key, topic, partition, offset))?
                            .is_none()
                    {
                        continue;
                    }
                    letters.push(codec.decode(consumer, bytes.value())?);
                }
                Ok(letters)
            })
            .await
    }

    async fn dead_letter(&self, id: &LetterId) -> Result<Option<DeadLetter>, StoreError> {
        let (codec, id) = (self.store.codec().clone(), id.clone());
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(LETTERS)?;
                let place = (
                    id.consumer.as_str(),
                    id.topic.as_str(),
                    id.partition,
                    id.offset,
                );
                let found = table.get(place)?;
                let letter = found.map(|bytes| codec.decode(&id.consumer, bytes.value()));
                Ok(letter.transpose()?)
            })
            .await
    }

    async fn count(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(KEYS)?;
                let mut all = 0;
                for row in table.iter()? {
                    let (key, count) = row?;
                    let (consumer, key) = key.value();
                    let takes = |wanted: &Option<String>, is: &str| {
                        wanted.as_deref().is_none_or(|wanted| wanted == is)
                    };
                    if takes(&filter.consumer, consumer) && takes(&filter.key, key) {
                        all += count.value();
                    }
                }
                Ok(all)
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

    async fn unpark(&self, id: &LetterId) -> Result<bool, StoreError> {
        let (codec, id) = (self.store.codec().clone(), id.clone());
        self.store
            .write(Durable::Yes, move |transaction| {
                let place = (
                    id.consumer.as_str(),
                    id.topic.as_str(),
                    id.partition,
                    id.offset,
                );
                remove(transaction, &codec, place)
            })
            .await
    }

    async fn unpark_key(&self, consumer: &str, key: &str) -> Result<u64, StoreError> {
        let (codec, consumer, key) = (
            self.store.codec().clone(),
            consumer.to_owned(),
            key.to_owned(),
        );
        self.store
            .write(Durable::Yes, move |transaction| {
                let (consumer, key) = (consumer.as_str(), key.as_str());
                let all = (consumer, key, "", i32::MIN, i64::MIN)
                    ..=(consumer, key, LAST, i32::MAX, i64::MAX);
                let places = transaction
                    .open_table(BY_KEY)?
                    .range::<(&str, &str, &str, i32, i64)>(all)?
                    .map(|row| {
                        let (place, _) = row?;
                        let (_, _, topic, partition, offset) = place.value();
                        Ok((topic.to_owned(), partition, offset))
                    })
                    .collect::<Result<Vec<_>, WorkError>>()?;
                let mut removed = 0;
                for (topic, partition, offset) in places {
                    let place = (consumer, topic.as_str(), partition, offset);
                    removed += u64::from(remove(transaction, &codec, place)?);
                }
                Ok(removed)
            })
            .await
    }
}
