//! Aggregates with their outbox and their first answers, in tables of the embedded store.
//!
//! The tables of a collection `c`: `c/state`, `c/outbox`, `c/outbox/oldest`, those of [`super::answers`], and
//! `c/by/f,g` for each list that is filtered by the fields `f` and `g`. A write changes all of them in one transaction.

mod list_key;
mod lists;
mod outbox;
mod prepared_write;
mod published;
mod state_row;
mod tables;

use std::{marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redb::ReadTransaction;

use super::{
    Codec, Durable, EmbeddedStore, WorkError,
    answers::{self, FORGOTTEN_AT_ONCE},
    last_failure::LastFailure,
};
use tandem_event_path::store::{
    AggregateStore, Outcome, PageRequest, PublishedRow, Span, SpanRequest, StoreError, Stored,
    Write,
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

use lists::{page, span};
use prepared_write::Prepared;
use published::{published, remove, still_as};
use state_row::StateRow;
use tables::{Names, make_tables};

/// Up to how many aggregates are read on the current thread.
const FEW: usize = 8;

/// Aggregates of one kind in the embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedAggregates<A> {
    store: Arc<EmbeddedStore>,
    names: Arc<Names>,
    /// The last failure of a command's write. Other writes of the service are small, and may find space where a
    /// command's does not.
    last_failure: LastFailure,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> EmbeddedAggregates<A> {
    /// The aggregates in this file. Missing tables are created, and lists whose fields have changed are built again.
    ///
    /// # Errors
    /// If the file cannot be written, or has other tables with these names.
    pub async fn open(store: Arc<EmbeddedStore>) -> Result<Self, StoreError> {
        let names = Arc::new(Names::of::<A>());
        let (codec, tables) = (store.codec().clone(), Arc::clone(&names));
        store
            .write(Durable::Yes, move |transaction| {
                make_tables::<A>(transaction, &tables, &codec)
            })
            .await?;
        Ok(Self {
            store,
            names,
            last_failure: LastFailure::default(),
            aggregate: PhantomData,
        })
    }
}

#[async_trait]
impl<A: Aggregate> AggregateStore<A> for EmbeddedAggregates<A> {
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<A>>>, StoreError> {
        if ids.len() <= FEW {
            return self.store.read_here(|transaction| {
                get_many(transaction, &self.names, self.store.codec(), ids)
            });
        }
        let (names, codec, ids) = (
            Arc::clone(&self.names),
            self.store.codec().clone(),
            ids.to_vec(),
        );
        self.store
            .read(move |transaction| get_many(transaction, &names, &codec, &ids))
            .await
    }

    async fn write(&self, write: &Write<A>) -> Result<Outcome, StoreError> {
        let prepared = Prepared::new(write, self.store.codec())?;
        let names = Arc::clone(&self.names);
        let ended = self
            .store
            .write(Durable::Yes, move |transaction| {
                prepared.apply(transaction, &names)
            })
            .await;
        self.last_failure.note(&ended);
        ended
    }

    async fn first_answer(
        &self,
        idempotency_key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError> {
        self.store.read_here(|transaction| {
            answers::find(
                transaction,
                &self.names.answers,
                self.store.codec(),
                idempotency_key,
                |id| {
                    let states = transaction.open_table(self.names.state())?;
                    let row = states.get(id)?;
                    Ok(row.map(|row| row.value().2.to_vec()))
                },
            )
        })
    }

    async fn keep_answer(
        &self,
        idempotency_key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError> {
        let row = StateRow::new(state, self.store.codec())?;
        let (names, key) = (Arc::clone(&self.names), idempotency_key.clone());
        self.store
            .write(Durable::Yes, move |transaction| {
                let stored = row.stored(&transaction.open_table(names.state())?)?;
                if stored.revision != row.revision {
                    return Ok(Outcome::Stale);
                }
                if answers::is_taken(transaction, &names.answers, &key)? {
                    return Ok(Outcome::KeyTaken);
                }
                let at = at.timestamp_millis();
                answers::keep(transaction, &names.answers, &key, at, &row.id, &row.bytes)?;
                Ok(Outcome::Written)
            })
            .await
    }

    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let before = before.timestamp_millis();
        let mut total = 0;
        loop {
            let names = Arc::clone(&self.names);
            let forgotten = self
                .store
                .write(Durable::No, move |transaction| {
                    answers::forget_older(transaction, &names.answers, before)
                })
                .await?;
            total += forgotten as u64;
            if forgotten < FORGOTTEN_AT_ONCE {
                return Ok(total);
            }
        }
    }

    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError> {
        for some in ids.chunks(FORGOTTEN_AT_ONCE) {
            let (names, some) = (Arc::clone(&self.names), some.to_vec());
            self.store
                .write(Durable::Yes, move |transaction| {
                    let ids = some.iter().map(String::as_str).collect();
                    answers::empty_of(transaction, &names.answers, &ids)
                })
                .await?;
        }
        Ok(())
    }

    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError> {
        let (names, codec, requests) = (
            Arc::clone(&self.names),
            self.store.codec().clone(),
            requests.to_vec(),
        );
        self.store
            .read(move |transaction| {
                let state = transaction.open_table(names.state())?;
                requests
                    .iter()
                    .map(|request| page(transaction, &state, &names, &codec, request))
                    .collect()
            })
            .await
    }

    async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError> {
        let (names, codec, request) = (
            Arc::clone(&self.names),
            self.store.codec().clone(),
            request.clone(),
        );
        self.store
            .read(move |transaction| span(transaction, &names, &codec, &request))
            .await
    }

    async fn restore(&self, states: &[A]) -> Result<(), StoreError> {
        let codec = self.store.codec();
        let restored = states
            .iter()
            .map(|state| StateRow::new(state, codec))
            .collect::<Result<Vec<_>, _>>()?;
        let names = Arc::clone(&self.names);
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut states = transaction.open_table(names.state())?;
                for row in &restored {
                    row.put_over_older(transaction, &mut states, &names)?;
                }
                Ok(())
            })
            .await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let names = Arc::clone(&self.names);
        let after = after.map(|seen| seen.id.clone());
        self.store
            .read(move |transaction| published(transaction, &names, after.as_deref(), limit))
            .await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let (names, seen) = (Arc::clone(&self.names), seen.to_vec());
        self.store
            .write(Durable::Yes, move |transaction| {
                remove(transaction, &names, &seen)
            })
            .await
    }

    async fn revert(&self, states: &[(PublishedRow, A)]) -> Result<u64, StoreError> {
        let codec = self.store.codec();
        let rows = states
            .iter()
            .map(|(seen, state)| Ok((seen.clone(), StateRow::new(state, codec)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let names = Arc::clone(&self.names);
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut states = transaction.open_table(names.state())?;
                let pending = transaction.open_table(names.pending())?;
                let mut count = 0;
                for (seen, row) in &rows {
                    if let Some(stored) = still_as(&states, &pending, seen)? {
                        row.put(transaction, &mut states, &stored, &names)?;
                        count += 1;
                    }
                }
                Ok(count)
            })
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Goes through the writer, because a store that can be read but not written counts as unavailable. It flushes
        // nothing.
        self.store.write(Durable::No, |_| Ok(())).await
    }

    fn last_failure(&self) -> Option<StoreError> {
        let of_commands = self.last_failure.get();
        of_commands.or_else(|| self.store.last_failure())
    }
}

fn get_many<A: Aggregate>(
    transaction: &ReadTransaction,
    names: &Names,
    codec: &Codec,
    ids: &[String],
) -> Result<Vec<Option<Stored<A>>>, WorkError> {
    let states = transaction.open_table(names.state())?;
    let pending = transaction.open_table(names.pending())?;
    ids.iter()
        .map(|id| {
            let Some(row) = states.get(id.as_str())? else {
                return Ok(None);
            };
            let state = codec.decode(id, row.value().2)?;
            let range = (id.as_str(), i64::MIN)..=(id.as_str(), i64::MAX);
            let pending = pending
                .range::<(&str, i64)>(range)?
                .map(|row| Ok(codec.decode(id, row?.1.value().1)?))
                .collect::<Result<_, WorkError>>()?;
            Ok(Some(Stored { state, pending }))
        })
        .collect()
}
