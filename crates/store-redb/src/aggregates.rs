//! Aggregates with their outbox and their first answers, in tables of the embedded store.
//!
//! The tables of a collection `c`: `c/state`, `c/outbox`, `c/outbox/oldest`, those of [`super::answers`], and `c/by/f,g` for
//! each list that is narrowed by fields `f` and `g`. One write touches them all in one transaction.

use std::{collections::HashSet, marker::PhantomData, ops::Bound, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::{
    Codec, Durable, EmbeddedStore, WorkError,
    answers::{self, AnswerTables, FORGOTTEN_AT_ONCE},
    version_of,
};
use tandem_event_path::{
    outbox::{Backlog, Outbox, PendingEvent},
    store::{
        AggregateStore, Filter, Outcome, PAGE_BYTES, PageRequest, PublishedRow, Span, SpanRequest,
        StoreError, Stored, Write, no_such_list,
    },
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

/// Aggregates read without handing the work to another thread.
const FEW: usize = 8;

/// id → (revision, its keys in the lists, state). Revision and keys stand apart so that a write decodes nothing.
type State<'a> = TableDefinition<'a, &'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;
/// (id, revision) → (stored at, pending event).
type Pending<'a> = TableDefinition<'a, (&'static str, i64), (i64, &'static [u8])>;
/// (stored at, id) for each id that has pending events: of its oldest.
type Oldest<'a> = TableDefinition<'a, (i64, &'static str), ()>;
/// The values of the fields, then the id: see [`list_key`].
type List<'a> = TableDefinition<'a, &'static [u8], ()>;
/// What the lists of a collection are made of.
const LISTS: TableDefinition<'static, &str, &str> = TableDefinition::new("lists");

#[derive(Debug)]
struct Names {
    state: String,
    pending: String,
    oldest: String,
    answers: AnswerTables,
    lists: Vec<String>,
}

impl Names {
    fn of<A: Aggregate>() -> Self {
        let name = |part: &str| format!("{}/{part}", A::COLLECTION);
        Self {
            state: name("state"),
            pending: name("outbox"),
            oldest: name("outbox/oldest"),
            answers: AnswerTables::of(A::COLLECTION),
            lists: A::INDEXES
                .iter()
                .map(|fields| name(&format!("by/{}", fields.join(","))))
                .collect(),
        }
    }

    fn state(&self) -> State<'_> {
        State::new(&self.state)
    }

    fn pending(&self) -> Pending<'_> {
        Pending::new(&self.pending)
    }

    fn oldest(&self) -> Oldest<'_> {
        Oldest::new(&self.oldest)
    }

    fn list(&self, position: usize) -> List<'_> {
        List::new(&self.lists[position])
    }
}

/// Aggregates of one kind in the embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedAggregates<A> {
    store: Arc<EmbeddedStore>,
    names: Arc<Names>,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> EmbeddedAggregates<A> {
    /// The aggregates in this file; tables that are missing are made, and lists that were made of other fields are made anew.
    ///
    /// # Errors
    /// When the file cannot be written, or holds something else under these names.
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
        self.store
            .write(Durable::Yes, move |transaction| {
                prepared.apply(transaction, &names)
            })
            .await
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
        // Through the writer: a store that can be read and not written is not there. Nothing is flushed for it.
        self.store.write(Durable::No, |_| Ok(())).await
    }
}

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

/// A state with everything encoded, so that the writer thread only moves bytes.
struct StateRow {
    id: String,
    revision: i64,
    lists: Vec<Vec<u8>>,
    bytes: Vec<u8>,
}

/// What is stored of an aggregate now: revision 0 and no lists when there is none.
#[derive(Default)]
struct StoredRow {
    revision: i64,
    lists: Vec<Vec<u8>>,
}

impl From<(i64, Vec<&[u8]>, &[u8])> for StoredRow {
    fn from((revision, lists, _): (i64, Vec<&[u8]>, &[u8])) -> Self {
        Self {
            revision,
            lists: lists.into_iter().map(<[u8]>::to_vec).collect(),
        }
    }
}

type WritableStates<'transaction> =
    redb::Table<'transaction, &'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;

impl StateRow {
    fn new<A: Aggregate>(state: &A, codec: &Codec) -> Result<Self, WorkError> {
        Ok(Self {
            id: state.id().to_owned(),
            revision: state.revision(),
            lists: list_keys(state)?,
            bytes: codec.encode(state.id(), state)?,
        })
    }

    fn stored(&self, states: &WritableStates<'_>) -> Result<StoredRow, WorkError> {
        let row = states.get(self.id.as_str())?;
        Ok(row.map_or_else(StoredRow::default, |row| StoredRow::from(row.value())))
    }

    /// Writes the state and moves it from the lists that it was in to those that it is in now.
    fn put(
        &self,
        transaction: &WriteTransaction,
        states: &mut WritableStates<'_>,
        stored: &StoredRow,
        names: &Names,
    ) -> Result<(), WorkError> {
        states.insert(self.id.as_str(), self.value())?;
        self.list(transaction, stored, names)
    }

    /// As [`Self::put`], unless what is stored is newer. One walk down the tree and no look before: that is rare.
    fn put_over_older(
        &self,
        transaction: &WriteTransaction,
        states: &mut WritableStates<'_>,
        names: &Names,
    ) -> Result<(), WorkError> {
        let (stored, newer) = match states.insert(self.id.as_str(), self.value())? {
            None => (StoredRow::default(), None),
            Some(replaced) => {
                let (revision, _, bytes) = replaced.value();
                let newer = (revision > self.revision).then(|| bytes.to_vec());
                (StoredRow::from(replaced.value()), newer)
            }
        };
        let Some(newer) = newer else {
            return self.list(transaction, &stored, names);
        };
        let lists = stored.lists.iter().map(Vec::as_slice).collect();
        let row = (stored.revision, lists, newer.as_slice());
        states.insert(self.id.as_str(), row)?;
        Ok(())
    }

    fn value(&self) -> (i64, Vec<&[u8]>, &[u8]) {
        let lists = self.lists.iter().map(Vec::as_slice).collect();
        (self.revision, lists, self.bytes.as_slice())
    }

    /// Moves it from the lists that it was in to those that it is in now.
    fn list(
        &self,
        transaction: &WriteTransaction,
        stored: &StoredRow,
        names: &Names,
    ) -> Result<(), WorkError> {
        for (position, key) in self.lists.iter().enumerate() {
            let old = stored.lists.get(position);
            if old == Some(key) {
                continue;
            }
            let mut list = transaction.open_table(names.list(position))?;
            if let Some(old) = old.filter(|old| !old.is_empty()) {
                list.remove(old.as_slice())?;
            }
            if !key.is_empty() {
                list.insert(key.as_slice(), ())?;
            }
        }
        Ok(())
    }
}

/// A write with everything encoded.
struct Prepared {
    expected_revision: i64,
    state: StateRow,
    recorded_at: i64,
    event: Vec<u8>,
    idempotency_key: Option<RequestKey>,
    forget_answers: bool,
}

impl Prepared {
    fn new<A: Aggregate>(write: &Write<A>, codec: &Codec) -> Result<Self, WorkError> {
        Ok(Self {
            expected_revision: write.expected_revision,
            state: StateRow::new(&write.state, codec)?,
            recorded_at: write.event.recorded_at.timestamp_millis(),
            event: codec.encode(write.state.id(), &write.event)?,
            idempotency_key: write.idempotency_key.clone(),
            forget_answers: write.forget_answers,
        })
    }

    fn apply(&self, transaction: &WriteTransaction, names: &Names) -> Result<Outcome, WorkError> {
        let id = self.state.id.as_str();
        let mut states = transaction.open_table(names.state())?;
        let stored = self.state.stored(&states)?;
        if stored.revision != self.expected_revision {
            return Ok(Outcome::Stale);
        }
        // First whether the key is free: a write that is refused changes nothing.
        if let Some(key) = &self.idempotency_key
            && answers::is_taken(transaction, &names.answers, key)?
        {
            return Ok(Outcome::KeyTaken);
        }
        if self.forget_answers {
            answers::empty_of(transaction, &names.answers, &HashSet::from([id]))?;
        }
        if let Some(key) = &self.idempotency_key {
            let answer = self.state.bytes.as_slice();
            answers::keep(
                transaction,
                &names.answers,
                key,
                self.recorded_at,
                id,
                answer,
            )?;
        }
        self.state.put(transaction, &mut states, &stored, names)?;
        let mut pending = transaction.open_table(names.pending())?;
        if first_pending(&pending, id)?.is_none() {
            transaction
                .open_table(names.oldest())?
                .insert((self.recorded_at, id), ())?;
        }
        pending.insert(
            (id, self.expected_revision + 1),
            (self.recorded_at, self.event.as_slice()),
        )?;
        Ok(Outcome::Written)
    }
}

/// When the oldest pending event of an aggregate was stored, if it has one.
fn first_pending(
    pending: &impl ReadableTable<(&'static str, i64), (i64, &'static [u8])>,
    id: &str,
) -> Result<Option<i64>, WorkError> {
    let first = pending
        .range::<(&str, i64)>((id, i64::MIN)..=(id, i64::MAX))?
        .next();
    Ok(first.transpose()?.map(|(_, row)| row.value().0))
}

/// The key of an aggregate in each list; empty where it lacks a field and so is in no such list.
fn list_keys<A: Aggregate>(state: &A) -> Result<Vec<Vec<u8>>, WorkError> {
    A::INDEXES
        .iter()
        .map(|fields| {
            let values: Option<Vec<String>> =
                fields.iter().map(|field| state.field(field)).collect();
            Ok(values.map_or_else(Vec::new, |values| {
                list_key(values.iter().map(String::as_str), state.id())
            }))
        })
        .collect()
}

/// Values and id as one key that sorts by id within the same values. A zero byte ends each value; one inside a value
/// is followed by 255, so that no value can pass for the beginning of another.
fn list_key<'a>(values: impl Iterator<Item = &'a str>, id: &str) -> Vec<u8> {
    let mut key = Vec::new();
    for value in values {
        for byte in value.bytes() {
            key.push(byte);
            if byte == 0 {
                key.push(255);
            }
        }
        key.extend([0, 0]);
    }
    key.extend(id.bytes());
    key
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

type StateTable = ReadOnlyTable<&'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;

fn page<A: Aggregate>(
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

fn span<A: Aggregate>(
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
    // Keys of the last value begin with it and two zeros.
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
        // No id has a zero byte.
        let id = key.value().rsplit(|byte| *byte == 0).next();
        let id = std::str::from_utf8(id.unwrap_or_default()).map_err(|_| corrupt())?;
        let state = states.get(id)?.ok_or_else(corrupt)?;
        let stored = state.value().2;
        bytes += stored.len();
        found.push(codec.decode(id, stored)?);
    }
    Ok(Span { found, more: false })
}

/// Whether a range ends before it begins, which the table would take for a fault of the program.
fn is_empty((start, end): &(Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}

/// Which of [`Aggregate::INDEXES`] a filter is for.
fn position_of<A: Aggregate>(filter: &Filter) -> Result<usize, WorkError> {
    A::INDEXES
        .iter()
        .position(|fields| fields.iter().eq(filter.0.iter().map(|(field, _)| field)))
        .ok_or_else(|| no_such_list::<A>(filter).into())
}

fn pending(
    transaction: &ReadTransaction,
    names: &Names,
    codec: &Codec,
    before: i64,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<PendingEvent>, WorkError> {
    // The usual case by far, whatever the number of young events: nothing is that old.
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

/// A page of the aggregates of which nothing is pending.
fn published(
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

/// What is stored of an aggregate, if it has not been written since it was seen and nothing is pending.
fn still_as(
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

/// Removes aggregates that are still as they were seen, with those of the answers that are theirs.
fn remove(
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

fn make_tables<A: Aggregate>(
    transaction: &WriteTransaction,
    names: &Names,
    codec: &Codec,
) -> Result<(), WorkError> {
    let mut states = transaction.open_table(names.state())?;
    transaction.open_table(names.pending())?;
    transaction.open_table(names.oldest())?;
    answers::make_tables(transaction, &names.answers)?;
    let wanted = A::INDEXES
        .iter()
        .map(|fields| fields.join(","))
        .collect::<Vec<_>>()
        .join(";");
    let mut lists = transaction.open_table(LISTS)?;
    let unchanged = lists
        .get(A::COLLECTION)?
        .is_some_and(|made| made.value() == wanted);
    if unchanged {
        return Ok(());
    }
    for list in &names.lists {
        transaction.delete_table(List::new(list))?;
    }
    let mut rows: Vec<(String, i64, Vec<u8>)> = Vec::new();
    for row in states.iter()? {
        let (id, row) = row?;
        let (revision, _, bytes) = row.value();
        rows.push((id.value().to_owned(), revision, bytes.to_vec()));
    }
    for (position, _) in names.lists.iter().enumerate() {
        transaction.open_table(names.list(position))?;
    }
    for (id, revision, bytes) in &rows {
        let state: A = codec.decode(id, bytes)?;
        let keys = list_keys(&state)?;
        for (position, key) in keys.iter().enumerate().filter(|(_, key)| !key.is_empty()) {
            transaction
                .open_table(names.list(position))?
                .insert(key.as_slice(), ())?;
        }
        states.insert(
            id.as_str(),
            (
                *revision,
                keys.iter().map(Vec::as_slice).collect(),
                bytes.as_slice(),
            ),
        )?;
    }
    lists.insert(A::COLLECTION, wanted.as_str())?;
    Ok(())
}
