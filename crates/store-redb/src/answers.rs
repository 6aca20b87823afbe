//! First answers in the embedded store, next to the aggregates.
//!
//! An answer with an empty state stands for the current state of its aggregate.
//!
//! The tables of a collection `c`: `c/first-answers`, `c/first-answers/of`, `c/answers/time`, and `c/answers`. In the
//! last one, earlier versions kept answers without the request's input. They are read until they are a day old.

use std::collections::HashSet;

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};

use super::{Codec, WorkError};
use tandem_event_path::store::KEPT_ANSWERS;
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

/// How many answers one transaction forgets, so that commands in between do not wait for all of them.
pub(super) const FORGOTTEN_AT_ONCE: usize = 1_000;

/// Idempotency key → (written at, id, input, state).
type Answers<'a> =
    TableDefinition<'a, &'static str, (i64, &'static str, &'static str, &'static [u8])>;
/// (id, written at, idempotency key).
type AnswersOf<'a> = TableDefinition<'a, (&'static str, i64, &'static str), ()>;
/// (written at, idempotency key), for both kinds of answers.
type Times<'a> = TableDefinition<'a, (i64, &'static str), ()>;
/// Idempotency key → (written at, id, state).
type Former<'a> = TableDefinition<'a, &'static str, (i64, &'static str, &'static [u8])>;

/// The names of a collection's tables.
#[derive(Debug)]
pub(super) struct AnswerTables {
    answers: String,
    of: String,
    times: String,
    former: String,
}

impl AnswerTables {
    pub(super) fn of(collection: &str) -> Self {
        let name = |part: &str| format!("{collection}/{part}");
        Self {
            answers: name("first-answers"),
            of: name("first-answers/of"),
            times: name("answers/time"),
            former: name("answers"),
        }
    }

    fn answers(&self) -> Answers<'_> {
        Answers::new(&self.answers)
    }

    fn by_id(&self) -> AnswersOf<'_> {
        AnswersOf::new(&self.of)
    }

    fn times(&self) -> Times<'_> {
        Times::new(&self.times)
    }

    fn former(&self) -> Former<'_> {
        Former::new(&self.former)
    }
}

pub(super) fn make_tables(
    transaction: &WriteTransaction,
    tables: &AnswerTables,
) -> Result<(), WorkError> {
    transaction.open_table(tables.answers())?;
    transaction.open_table(tables.by_id())?;
    transaction.open_table(tables.times())?;
    transaction.open_table(tables.former())?;
    Ok(())
}

/// The answer for a key, if there is one. `present` reads the stored bytes of an aggregate.
pub(super) fn find<A: Aggregate>(
    transaction: &ReadTransaction,
    tables: &AnswerTables,
    codec: &Codec,
    key: &RequestKey,
    present: impl Fn(&str) -> Result<Option<Vec<u8>>, WorkError>,
) -> Result<Option<FirstAnswer<A>>, WorkError> {
    let state = |id: &str, bytes: &[u8]| -> Result<Option<A>, WorkError> {
        if !bytes.is_empty() {
            return Ok(Some(codec.decode(id, bytes)?));
        }
        Ok(match present(id)? {
            Some(bytes) => Some(codec.decode(id, &bytes)?),
            None => None,
        })
    };
    let answers = transaction.open_table(tables.answers())?;
    if let Some(row) = answers.get(key.key.as_str())? {
        let (_, id, input, bytes) = row.value();
        return Ok(state(id, bytes)?.map(|state| FirstAnswer {
            state,
            input: Some(input.to_owned()),
        }));
    }
    let former = transaction.open_table(tables.former())?;
    for name in key.names() {
        if let Some(row) = former.get(name)? {
            let (_, id, bytes) = row.value();
            return Ok(state(id, bytes)?.map(|state| FirstAnswer { state, input: None }));
        }
    }
    Ok(None)
}

/// Whether there is an answer for a key.
pub(super) fn is_taken(
    transaction: &WriteTransaction,
    tables: &AnswerTables,
    key: &RequestKey,
) -> Result<bool, WorkError> {
    let answers = transaction.open_table(tables.answers())?;
    if answers.get(key.key.as_str())?.is_some() {
        return Ok(true);
    }
    let former = transaction.open_table(tables.former())?;
    if former.is_empty()? {
        return Ok(false);
    }
    for name in key.names() {
        if former.get(name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stores a state as the answer for a free key. If the aggregate has too many answers, the oldest is removed.
pub(super) fn keep(
    transaction: &WriteTransaction,
    tables: &AnswerTables,
    key: &RequestKey,
    at: i64,
    id: &str,
    state: &[u8],
) -> Result<(), WorkError> {
    let RequestKey { key, input, .. } = key;
    let (key, input) = (key.as_str(), input.as_str());
    let mut answers = transaction.open_table(tables.answers())?;
    let mut by_id = transaction.open_table(tables.by_id())?;
    let mut times = transaction.open_table(tables.times())?;
    answers.insert(key, (at, id, input, state))?;
    by_id.insert((id, at, key), ())?;
    times.insert((at, key), ())?;
    let of_this_one = (id, i64::MIN, "")..=(id, i64::MAX, "\u{10ffff}");
    let kept = by_id.range::<(&str, i64, &str)>(of_this_one.clone())?;
    if kept.count() <= KEPT_ANSWERS {
        return Ok(());
    }
    let oldest = match by_id.range::<(&str, i64, &str)>(of_this_one)?.next() {
        Some(row) => {
            let (row, _) = row?;
            let (_, at, key) = row.value();
            (at, key.to_owned())
        }
        None => return Ok(()),
    };
    let (at, key) = (oldest.0, oldest.1.as_str());
    by_id.remove((id, at, key))?;
    times.remove((at, key))?;
    answers.remove(key)?;
    Ok(())
}

/// Forgets a batch of answers that were stored before `before`, in milliseconds of the epoch. Returns how many: fewer
/// than [`FORGOTTEN_AT_ONCE`] if there are no more.
pub(super) fn forget_older(
    transaction: &WriteTransaction,
    tables: &AnswerTables,
    before: i64,
) -> Result<usize, WorkError> {
    let mut times = transaction.open_table(tables.times())?;
    let mut answers = transaction.open_table(tables.answers())?;
    let mut by_id = transaction.open_table(tables.by_id())?;
    let mut former = transaction.open_table(tables.former())?;
    let due: Vec<(i64, String)> = times
        .range::<(i64, &str)>(..(before, ""))?
        .take(FORGOTTEN_AT_ONCE)
        .map(|row| {
            let (row, _) = row?;
            let (at, key) = row.value();
            Ok((at, key.to_owned()))
        })
        .collect::<Result<_, WorkError>>()?;
    for (at, key) in &due {
        let key = key.as_str();
        times.remove((*at, key))?;
        former.remove(key)?;
        if let Some(row) = answers.remove(key)? {
            by_id.remove((row.value().1, *at, key))?;
        }
    }
    Ok(due.len())
}

/// The keys of one aggregate's answers, each with its time.
fn keys_of(
    by_id: &impl ReadableTable<(&'static str, i64, &'static str), ()>,
    id: &str,
) -> Result<Vec<(i64, String)>, WorkError> {
    let of_this_one = (id, i64::MIN, "")..=(id, i64::MAX, "\u{10ffff}");
    by_id
        .range::<(&str, i64, &str)>(of_this_one)?
        .map(|row| {
            let (row, _) = row?;
            let (_, at, key) = row.value();
            Ok((at, key.to_owned()))
        })
        .collect()
}

/// A key, the time when it was written, and the aggregate's id.
type FormerKey = (String, i64, String);

/// The keys of the answers that earlier versions stored for these aggregates. There is no table of them by id, but none
/// of them is older than a day.
fn former_keys_of(
    former: &impl ReadableTable<&'static str, (i64, &'static str, &'static [u8])>,
    ids: &HashSet<&str>,
) -> Result<Vec<FormerKey>, WorkError> {
    let mut found = Vec::new();
    for row in former.iter()? {
        let (key, row) = row?;
        let (at, id, _) = row.value();
        if ids.contains(id) {
            found.push((key.value().to_owned(), at, id.to_owned()));
        }
    }
    Ok(found)
}

/// Removes the states from the answers of these aggregates. Their keys stay used.
pub(super) fn empty_of(
    transaction: &WriteTransaction,
    tables: &AnswerTables,
    ids: &HashSet<&str>,
) -> Result<(), WorkError> {
    let mut answers = transaction.open_table(tables.answers())?;
    let by_id = transaction.open_table(tables.by_id())?;
    for id in ids {
        for (_, key) in keys_of(&by_id, id)? {
            let row = answers.get(key.as_str())?.map(|row| {
                let (at, id, input, _) = row.value();
                (at, id.to_owned(), input.to_owned())
            });
            if let Some((at, id, input)) = row {
                let emptied: &[u8] = &[];
                answers.insert(key.as_str(), (at, id.as_str(), input.as_str(), emptied))?;
            }
        }
    }
    let mut former = transaction.open_table(tables.former())?;
    for (key, at, id) in former_keys_of(&former, ids)? {
        let emptied: &[u8] = &[];
        former.insert(key.as_str(), (at, id.as_str(), emptied))?;
    }
    Ok(())
}

/// Removes the answers of removed aggregates.
pub(super) fn remove_of(
    transaction: &WriteTransaction,
    tables: &AnswerTables,
    ids: &HashSet<&str>,
) -> Result<(), WorkError> {
    let mut times = transaction.open_table(tables.times())?;
    let mut answers = transaction.open_table(tables.answers())?;
    let mut by_id = transaction.open_table(tables.by_id())?;
    for id in ids {
        for (at, key) in &keys_of(&by_id, id)? {
            let key = key.as_str();
            by_id.remove((*id, *at, key))?;
            times.remove((*at, key))?;
            answers.remove(key)?;
        }
    }
    let mut former = transaction.open_table(tables.former())?;
    for (key, at, _) in &former_keys_of(&former, ids)? {
        former.remove(key.as_str())?;
        times.remove((*at, key.as_str()))?;
    }
    Ok(())
}
