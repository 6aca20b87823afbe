//! The outbox: pending events by aggregate and revision, and the age of the oldest.

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{EmbeddedAggregates, tables::Names};
use crate::{Codec, Durable, WorkError};
use tandem_event_path::{
    outbox::{Backlog, Outbox, PendingEvent},
    store::StoreError,
};
use tandem_model::aggregate::Aggregate;

#[async_trait]
impl<A: Aggregate> Outbox for EmbeddedAggregates<A> {
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        let (names, codec) = (Arc::clone(&self.names), self.store.codec().clone());
        let (after, before) = (
            after_key.map(str::to_owned),
            recorded_before.timestamp_millis(),
        );
        self.store
            .read(move |transaction| {
                pending(transaction, &names, &codec, before, after.as_deref(), limit)
            })
            .await
    }

    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError> {
        let names = Arc::clone(&self.names);
        self.store
            .write(Durable::No, move |transaction| {
                clear(transaction, &names, &published)
            })
            .await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.store.read_here(|transaction| {
            let events = transaction.open_table(self.names.pending())?.len()?;
            let oldest = match transaction.open_table(self.names.oldest())?.first()? {
                Some((key, _)) => DateTime::from_timestamp_millis(key.value().0),
                None => None,
            };
            Ok(Backlog { events, oldest })
        })
    }
}

fn pending(
    transaction: &ReadTransaction,
    names: &Names,
    codec: &Codec,
    before: i64,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<PendingEvent>, WorkError> {
    // By far the most frequent case, however many young events there are: no event is old enough.
    let oldest = transaction.open_table(names.oldest())?;
    if oldest
        .first()?
        .is_none_or(|(key, _)| key.value().0 > before)
    {
        return Ok(Vec::new());
    }
    let table = transaction.open_table(names.pending())?;
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded((key, i64::MAX)));
    let mut events: Vec<PendingEvent> = Vec::new();
    let mut current: Option<(String, bool)> = None;
    for row in table.range::<(&str, i64)>((from, Bound::Unbounded))? {
        let (key, row) = row?;
        let (id, (recorded_at, bytes)) = (key.value().0, row.value());
        let wanted = match &current {
            Some((current, wanted)) if current == id => *wanted,
            _ => {
                if events.len() >= limit {
                    break;
                }
                let wanted = recorded_at <= before;
                current = Some((id.to_owned(), wanted));
                wanted
            }
        };
        if wanted {
            events.push(codec.decode(id, bytes)?);
        }
    }
    Ok(events)
}

fn clear(
    transaction: &WriteTransaction,
    names: &Names,
    published: &[(String, i64)],
) -> Result<(), WorkError> {
    let mut pending = transaction.open_table(names.pending())?;
    let mut oldest = transaction.open_table(names.oldest())?;
    for (id, revision) in published {
        let id = id.as_str();
        let Some(was) = first_pending(&pending, id)? else {
            continue;
        };
        pending.retain_in::<(&str, i64), _>((id, i64::MIN)..=(id, *revision), |_, _| false)?;
        let is = first_pending(&pending, id)?;
        if is != Some(was) {
            oldest.remove((was, id))?;
            if let Some(is) = is {
                oldest.insert((is, id), ())?;
            }
        }
    }
    Ok(())
}

/// When the oldest pending event of an aggregate was stored, if there is one.
pub(super) fn first_pending(
    pending: &impl ReadableTable<(&'static str, i64), (i64, &'static [u8])>,
    id: &str,
) -> Result<Option<i64>, WorkError> {
    let first = pending
        .range::<(&str, i64)>((id, i64::MIN)..=(id, i64::MAX))?
        .next();
    Ok(first.transpose()?.map(|(_, row)| row.value().0))
}
