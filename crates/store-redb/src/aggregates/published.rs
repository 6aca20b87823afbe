//! Aggregates without pending events, for rebuilds. Each one is removed or reverted only if it is unchanged since it
//! was seen.

use std::{collections::HashSet, ops::Bound};

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::{
    outbox::first_pending,
    state_row::StoredRow,
    tables::{Names, WritableStates},
};
use crate::{WorkError, answers, version_of};
use tandem_event_path::store::PublishedRow;

/// A page of the aggregates without pending events.
pub(super) fn published(
    transaction: &ReadTransaction,
    names: &Names,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<PublishedRow>, WorkError> {
    let states = transaction.open_table(names.state())?;
    let pending = transaction.open_table(names.pending())?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut page = Vec::new();
    for row in states.range::<&str>((from, Bound::Unbounded))? {
        if page.len() >= limit {
            break;
        }
        let (id, row) = row?;
        if first_pending(&pending, id.value())?.is_none() {
            let (revision, _, bytes) = row.value();
            page.push(PublishedRow {
                id: id.value().to_owned(),
                revision,
                version: version_of(bytes),
            });
        }
    }
    Ok(page)
}

/// The stored row of an aggregate, if it was not written since it was seen and has no pending events.
pub(super) fn still_as(
    states: &WritableStates<'_>,
    pending: &impl ReadableTable<(&'static str, i64), (i64, &'static [u8])>,
    seen: &PublishedRow,
) -> Result<Option<StoredRow>, WorkError> {
    if first_pending(pending, &seen.id)?.is_some() {
        return Ok(None);
    }
    let row = states.get(seen.id.as_str())?;
    Ok(row.and_then(|row| {
        let (revision, lists, bytes) = row.value();
        (revision == seen.revision && version_of(bytes) == seen.version)
            .then(|| StoredRow::from((revision, lists, bytes)))
    }))
}

/// Removes aggregates that are unchanged since they were seen, with their answers.
pub(super) fn remove(
    transaction: &WriteTransaction,
    names: &Names,
    seen: &[PublishedRow],
) -> Result<u64, WorkError> {
    let mut states = transaction.open_table(names.state())?;
    let pending = transaction.open_table(names.pending())?;
    let mut removed = HashSet::new();
    for seen in seen {
        let Some(stored) = still_as(&states, &pending, seen)? else {
            continue;
        };
        states.remove(seen.id.as_str())?;
        for (position, key) in stored.lists.iter().enumerate() {
            if !key.is_empty() {
                transaction
                    .open_table(names.list(position))?
                    .remove(key.as_slice())?;
            }
        }
        removed.insert(seen.id.as_str());
    }
    answers::remove_of(transaction, &names.answers, &removed)?;
    Ok(removed.len() as u64)
}
