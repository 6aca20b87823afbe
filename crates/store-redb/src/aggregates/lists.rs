//! Reads pages and spans of aggregates through the lists.

use std::ops::Bound;

use redb::ReadTransaction;

use super::{
    list_key::list_key,
    tables::{Names, StateTable},
};
use crate::{Codec, WorkError};
use tandem_event_path::store::{
    Filter, PAGE_BYTES, PageRequest, Span, SpanRequest, StoreError, no_such_list,
};
use tandem_model::aggregate::Aggregate;

pub(super) fn page<A: Aggregate>(
    transaction: &ReadTransaction,
    states: &StateTable,
    names: &Names,
    codec: &Codec,
    request: &PageRequest,
) -> Result<Vec<A>, WorkError> {
    let Filter(fields) = &request.filter;
    if fields.is_empty() {
        let from = request
            .after
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        return states
            .range::<&str>((from, Bound::Unbounded))?
            .take(request.limit)
            .map(|row| {
                let (id, row) = row?;
                Ok(codec.decode(id.value(), row.value().2)?)
            })
            .collect();
    }
    let position = position_of::<A>(&request.filter)?;
    let list = transaction.open_table(names.list(position))?;
    let prefix = list_key(fields.iter().map(|(_, value)| value.as_str()), "");
    let start = list_key(
        fields.iter().map(|(_, value)| value.as_str()),
        request.after.as_deref().unwrap_or(""),
    );
    let mut page = Vec::new();
    for row in list
        .range::<&[u8]>((Bound::Excluded(start.as_slice()), Bound::Unbounded))?
        .take(request.limit)
    {
        let key = row?.0;
        let Some(id) = key.value().strip_prefix(prefix.as_slice()) else {
            break;
        };
        let id = std::str::from_utf8(id)
            .map_err(|_| StoreError::Corrupt(format!("a key in {}", names.lists[position])))?;
        let state = states.get(id)?.ok_or_else(|| {
            StoreError::Corrupt(format!(
                "{} names {id:?}, which is not there",
                names.lists[position]
            ))
        })?;
        page.push(codec.decode(id, state.value().2)?);
    }
    Ok(page)
}

pub(super) fn span<A: Aggregate>(
    transaction: &ReadTransaction,
    names: &Names,
    codec: &Codec,
    request: &SpanRequest,
) -> Result<Span<A>, WorkError> {
    let position = position_of::<A>(&request.filter())?;
    let list = transaction.open_table(names.list(position))?;
    let states = transaction.open_table(names.state())?;
    let corrupt = || StoreError::Corrupt(format!("a key in {}", names.lists[position]));
    let first = list_key([request.first.as_str()].into_iter(), "");
    let after = request.after.as_ref();
    let after = after.map(|(value, id)| list_key([value.as_str()].into_iter(), id));
    let start = match after {
        Some(after) if after >= first => Bound::Excluded(after),
        _ => Bound::Included(first),
    };
    // Keys of the last value begin with the value and two zeros.
    let mut end = list_key([request.last.as_str()].into_iter(), "");
    if let Some(last) = end.last_mut() {
        *last = 1;
    }
    let range = (
        start.as_ref().map(Vec::as_slice),
        Bound::Excluded(end.as_slice()),
    );
    let (mut found, mut bytes) = (Vec::new(), 0);
    if is_empty(&range) {
        return Ok(Span { found, more: false });
    }
    for row in list.range::<&[u8]>(range)? {
        if found.len() >= request.limit || bytes > PAGE_BYTES {
            return Ok(Span { found, more: true });
        }
        let key = row?.0;
        // Ids contain no zero byte.
        let id = key.value().rsplit(|byte| *byte == 0).next();
        let id = std::str::from_utf8(id.unwrap_or_default()).map_err(|_| corrupt())?;
        let state = states.get(id)?.ok_or_else(corrupt)?;
        let stored = state.value().2;
        bytes += stored.len();
        found.push(codec.decode(id, stored)?);
    }
    Ok(Span { found, more: false })
}

/// Whether a range ends before it begins. redb treats such a range as a programming error.
fn is_empty((start, end): &(Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}

/// The position of the filter's fields in [`Aggregate::INDEXES`].
fn position_of<A: Aggregate>(filter: &Filter) -> Result<usize, WorkError> {
    A::INDEXES
        .iter()
        .position(|fields| fields.iter().eq(filter.0.iter().map(|(field, _)| field)))
        .ok_or_else(|| no_such_list::<A>(filter).into())
}
