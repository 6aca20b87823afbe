//! Aggregates with their outbox and their first answers, in tables of the embedded store.
//!
//! The tables of a collection `c`: `c/state`, `c/outbox`, `c/outbox/oldest`, `c/answers`, `c/answers/time`, and `c/by/f,g` for
//! each list that is narrowed by fields `f` and `g`. One write touches them all in one transaction.

use std::{collections::HashSet, marker::PhantomData, ops::Bound, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::{Codec, Durable, EmbeddedStore, mark};
use crate::{
    aggregate::Aggregate,
    outbox::{Backlog, Outbox, PendingEvent},
    store::{AggregateStore, Filter, Outcome, PageRequest, Settled, StoreError, Stored, Write},
};

/// Aggregates read without handing the work to another thread.
const FEW: usize = 8;

/// Answers forgotten in one transaction, so that commands in between do not wait for all of them.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// id → (revision, its keys in the lists, state). Revision and keys stand apart so that a write decodes nothing.
type State<'a> = TableDefinition<'a, &'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;
/// (id, revision) → (stored at, pending event).
type Pending<'a> = TableDefinition<'a, (&'static str, i64), (i64, &'static [u8])>;
/// (stored at, id) for each id that has pending events: of its oldest.
type Oldest<'a> = TableDefinition<'a, (i64, &'static str), ()>;
/// Idempotency key → (written at, id, state).
type Answers<'a> = TableDefinition<'a, &'static str, (i64, &'static str, &'static [u8])>;
/// (written at, idempotency key).
type AnswerTimes<'a> = TableDefinition<'a, (i64, &'static str), ()>;
/// The values of the fields, then the id: see [`list_key`].
type List<'a> = TableDefinition<'a, &'static [u8], ()>;
/// What the lists of a collection are made of.
const LISTS: TableDefinition<'static, &str, &str> = TableDefinition::new("lists");

#[derive(Debug)]
struct Names {
    state: String,
    pending: String,
    oldest: String,
    answers: String,
    answer_times: String,
    lists: Vec<String>,
}

impl Names {
    fn of<A: Aggregate>() -> Self {
        let name = |part: &str| format!("{}/{part}", A::COLLECTION);
        Self {
            state: name("state"),
            pending: name("outbox"),
            oldest: name("outbox/oldest"),
            answers: name("answers"),
            answer_times: name("answers/time"),
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

    fn answers(&self) -> Answers<'_> {
        Answers::new(&self.answers)
    }

    fn answer_times(&self) -> AnswerTimes<'_> {
        AnswerTimes::new(&self.answer_times)
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

    /// The first answers that hold states of these aggregates, as of now: see [`answers_of`].
    async fn find_answers(&self, ids: Vec<String>) -> Result<Vec<(i64, String)>, StoreError> {
        let names = Arc::clone(&self.names);
        self.store
            .read(move |transaction| {
                let ids = ids.iter().map(String::as_str).collect();
                answers_of(&transaction.open_table(names.answers())?, &ids)
            })
            .await
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

    async fn first_answer(&self, idempotency_key: &str) -> Result<Option<A>, StoreError> {
        self.store.read_here(|transaction| {
            let table = transaction.open_table(self.names.answers())?;
            let Some(row) = table.get(idempotency_key)? else {
                return Ok(None);
            };
            let (_, id, bytes) = row.value();
            self.store.codec().decode(id, bytes).map(Some)
        })
    }

    async fn keep_answer(
        &self,
        idempotency_key: &str,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError> {
        let row = StateRow::new(state, self.store.codec())?;
        let (names, key) = (Arc::clone(&self.names), idempotency_key.to_owned());
        self.store
            .write(Durable::Yes, move |transaction| {
                let stored = row.stored(&transaction.open_table(names.state())?)?;
                if stored.revision != row.revision {
                    return Ok(Outcome::Stale);
                }
                keep_answer(transaction, &names, &key, at.timestamp_millis(), &row)
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
                    forget_answers(transaction, &names, before)
                })
                .await?;
            total += forgotten as u64;
            if forgotten < FORGOTTEN_AT_ONCE {
                return Ok(total);
            }
        }
    }

    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError> {
        let found = self.find_answers(ids.to_vec()).await?;
        for some in found.chunks(FORGOTTEN_AT_ONCE) {
            let (names, some) = (Arc::clone(&self.names), some.to_vec());
            self.store
                .write(Durable::Yes, move |transaction| {
                    remove_answers(transaction, &names, &some)
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

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        let names = Arc::clone(&self.names);
        let after = after.map(|seen| seen.id.clone());
        self.store
            .read(move |transaction| settled(transaction, &names, after.as_deref(), limit))
            .await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        let (names, seen) = (Arc::clone(&self.names), seen.to_vec());
        let ids: Vec<String> = seen.iter().map(|seen| seen.id.clone()).collect();
        // Found before, removed with the aggregate: what somebody else is told afterwards is not of this one.
        let answers = self.find_answers(ids).await?;
        self.store
            .write(Durable::Yes, move |transaction| {
                remove(transaction, &names, &seen, &answers)
            })
            .await
    }

    async fn set_back(&self, states: &[(Settled, A)]) -> Result<u64, StoreError> {
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
    fn new<A: Aggregate>(state: &A, codec: &Codec) -> Result<Self, StoreError> {
        Ok(Self {
            id: state.id().to_owned(),
            revision: state.revision(),
            lists: list_keys(state)?,
            bytes: codec.encode(state.id(), state)?,
        })
    }

    fn stored(&self, states: &WritableStates<'_>) -> Result<StoredRow, StoreError> {
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
    ) -> Result<(), StoreError> {
        states.insert(self.id.as_str(), self.value())?;
        self.list(transaction, stored, names)
    }

    /// As [`Self::put`], unless what is stored is newer. One walk down the tree and no look before: that is rare.
    fn put_over_older(
        &self,
        transaction: &WriteTransaction,
        states: &mut WritableStates<'_>,
        names: &Names,
    ) -> Result<(), StoreError> {
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
    ) -> Result<(), StoreError> {
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
    idempotency_key: Option<String>,
    forget_answers: bool,
}

impl Prepared {
    fn new<A: Aggregate>(write: &Write<A>, codec: &Codec) -> Result<Self, StoreError> {
        Ok(Self {
            expected_revision: write.expected_revision,
            state: StateRow::new(&write.state, codec)?,
            recorded_at: write.event.recorded_at.timestamp_millis(),
            event: codec.encode(write.state.id(), &write.event)?,
            idempotency_key: write.idempotency_key.clone(),
            forget_answers: write.forget_answers,
        })
    }

    fn apply(&self, transaction: &WriteTransaction, names: &Names) -> Result<Outcome, StoreError> {
        let id = self.state.id.as_str();
        let mut states = transaction.open_table(names.state())?;
        let stored = self.state.stored(&states)?;
        if stored.revision != self.expected_revision {
            return Ok(Outcome::Stale);
        }
        let key = self.idempotency_key.as_deref();
        if self.forget_answers {
            // Before the request's own answer is kept, and only if its key is free: a write that is refused changes nothing.
            if let Some(key) = key
                && transaction.open_table(names.answers())?.get(key)?.is_some()
            {
                return Ok(Outcome::KeyTaken);
            }
            let ids = HashSet::from([id]);
            let found = answers_of(&transaction.open_table(names.answers())?, &ids)?;
            remove_answers(transaction, names, &found)?;
        }
        if let Some(key) = key
            && keep_answer(transaction, names, key, self.recorded_at, &self.state)?
                == Outcome::KeyTaken
        {
            return Ok(Outcome::KeyTaken);
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

/// Keeps a state as the answer under a key, unless the key is taken.
fn keep_answer(
    transaction: &WriteTransaction,
    names: &Names,
    key: &str,
    at: i64,
    answer: &StateRow,
) -> Result<Outcome, StoreError> {
    let mut answers = transaction.open_table(names.answers())?;
    if answers.get(key)?.is_some() {
        return Ok(Outcome::KeyTaken);
    }
    answers.insert(key, (at, answer.id.as_str(), answer.bytes.as_slice()))?;
    transaction
        .open_table(names.answer_times())?
        .insert((at, key), ())?;
    Ok(Outcome::Written)
}

/// When the oldest pending event of an aggregate was stored, if it has one.
fn first_pending(
    pending: &impl ReadableTable<(&'static str, i64), (i64, &'static [u8])>,
    id: &str,
) -> Result<Option<i64>, StoreError> {
    let first = pending
        .range::<(&str, i64)>((id, i64::MIN)..=(id, i64::MAX))?
        .next();
    Ok(first.transpose()?.map(|(_, row)| row.value().0))
}

/// The key of an aggregate in each list; empty where it lacks a field and so is in no such list.
fn list_keys<A: Aggregate>(state: &A) -> Result<Vec<Vec<u8>>, StoreError> {
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
) -> Result<Vec<Option<Stored<A>>>, StoreError> {
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
                .map(|row| codec.decode(id, row?.1.value().1))
                .collect::<Result<_, StoreError>>()?;
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
) -> Result<Vec<A>, StoreError> {
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
                codec.decode(id.value(), row.value().2)
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

/// Which of [`Aggregate::INDEXES`] a filter is for.
fn position_of<A: Aggregate>(filter: &Filter) -> Result<usize, StoreError> {
    A::INDEXES
        .iter()
        .position(|fields| fields.iter().eq(filter.0.iter().map(|(field, _)| field)))
        .ok_or_else(|| crate::store::no_such_list::<A>(filter))
}

fn pending(
    transaction: &ReadTransaction,
    names: &Names,
    codec: &Codec,
    before: i64,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<PendingEvent>, StoreError> {
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
) -> Result<(), StoreError> {
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
fn settled(
    transaction: &ReadTransaction,
    names: &Names,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Settled>, StoreError> {
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
            page.push(Settled {
                id: id.value().to_owned(),
                revision,
                mark: mark(bytes),
            });
        }
    }
    Ok(page)
}

/// What is stored of an aggregate, if it has not been written since it was seen and nothing is pending.
fn still_as(
    states: &WritableStates<'_>,
    pending: &impl ReadableTable<(&'static str, i64), (i64, &'static [u8])>,
    seen: &Settled,
) -> Result<Option<StoredRow>, StoreError> {
    if first_pending(pending, &seen.id)?.is_some() {
        return Ok(None);
    }
    let row = states.get(seen.id.as_str())?;
    Ok(row.and_then(|row| {
        let (revision, lists, bytes) = row.value();
        (revision == seen.revision && mark(bytes) == seen.mark)
            .then(|| StoredRow::from((revision, lists, bytes)))
    }))
}

/// Removes aggregates that are still as they were seen, with those of the answers that are theirs.
fn remove(
    transaction: &WriteTransaction,
    names: &Names,
    seen: &[Settled],
    answers: &[(i64, String)],
) -> Result<u64, StoreError> {
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
    let mut kept = transaction.open_table(names.answers())?;
    let mut times = transaction.open_table(names.answer_times())?;
    for (at, key) in answers {
        let is_theirs = kept
            .get(key.as_str())?
            .is_some_and(|row| removed.contains(row.value().1));
        if is_theirs {
            kept.remove(key.as_str())?;
            times.remove((*at, key.as_str()))?;
        }
    }
    Ok(removed.len() as u64)
}

/// When they were given and under which keys, for all first answers of some aggregates. This reads all there are: it is for the
/// rare case, and no write should pay for an index.
fn answers_of(
    answers: &impl ReadableTable<&'static str, (i64, &'static str, &'static [u8])>,
    ids: &HashSet<&str>,
) -> Result<Vec<(i64, String)>, StoreError> {
    let mut found = Vec::new();
    for row in answers.iter()? {
        let (key, row) = row?;
        let (at, id, _) = row.value();
        if ids.contains(id) {
            found.push((at, key.value().to_owned()));
        }
    }
    Ok(found)
}

fn remove_answers(
    transaction: &WriteTransaction,
    names: &Names,
    some: &[(i64, String)],
) -> Result<(), StoreError> {
    let mut times = transaction.open_table(names.answer_times())?;
    let mut answers = transaction.open_table(names.answers())?;
    for (at, key) in some {
        times.remove((*at, key.as_str()))?;
        answers.remove(key.as_str())?;
    }
    Ok(())
}

fn forget_answers(
    transaction: &WriteTransaction,
    names: &Names,
    before: i64,
) -> Result<usize, StoreError> {
    let times = transaction.open_table(names.answer_times())?;
    let due: Vec<(i64, String)> = times
        .range::<(i64, &str)>(..(before, ""))?
        .take(FORGOTTEN_AT_ONCE)
        .map(|row| {
            let (row, _) = row?;
            let (at, key) = row.value();
            Ok((at, key.to_owned()))
        })
        .collect::<Result<_, StoreError>>()?;
    drop(times);
    remove_answers(transaction, names, &due)?;
    Ok(due.len())
}

fn make_tables<A: Aggregate>(
    transaction: &WriteTransaction,
    names: &Names,
    codec: &Codec,
) -> Result<(), StoreError> {
    let mut states = transaction.open_table(names.state())?;
    transaction.open_table(names.pending())?;
    transaction.open_table(names.oldest())?;
    transaction.open_table(names.answers())?;
    transaction.open_table(names.answer_times())?;
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
