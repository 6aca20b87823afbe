//! The tables of a collection: their names, their rows, and their creation.

use redb::{ReadOnlyTable, ReadableTable, TableDefinition, WriteTransaction};

use super::list_key::list_keys;
use crate::{
    Codec, WorkError,
    answers::{self, AnswerTables},
};
use tandem_model::aggregate::Aggregate;

/// id → (revision, keys in the lists, state). Revision and keys are separate columns, so that a write decodes nothing.
type State<'a> = TableDefinition<'a, &'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;
/// (id, revision) → (stored at, pending event).
type Pending<'a> = TableDefinition<'a, (&'static str, i64), (i64, &'static [u8])>;
/// (stored at, id) for each id with pending events, with the time of the oldest event.
type Oldest<'a> = TableDefinition<'a, (i64, &'static str), ()>;
/// The values of the fields, then the id: see [`super::list_key::list_key`].
type List<'a> = TableDefinition<'a, &'static [u8], ()>;
/// The fields that each list of a collection was built from.
const LISTS: TableDefinition<'static, &str, &str> = TableDefinition::new("lists");

pub(super) type StateTable = ReadOnlyTable<&'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;

pub(super) type WritableStates<'transaction> =
    redb::Table<'transaction, &'static str, (i64, Vec<&'static [u8]>, &'static [u8])>;

#[derive(Debug)]
pub(super) struct Names {
    state: String,
    pending: String,
    oldest: String,
    pub(super) answers: AnswerTables,
    pub(super) lists: Vec<String>,
}

impl Names {
    pub(super) fn of<A: Aggregate>() -> Self {
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

    pub(super) fn state(&self) -> State<'_> {
        State::new(&self.state)
    }

    pub(super) fn pending(&self) -> Pending<'_> {
        Pending::new(&self.pending)
    }

    pub(super) fn oldest(&self) -> Oldest<'_> {
        Oldest::new(&self.oldest)
    }

    pub(super) fn list(&self, position: usize) -> List<'_> {
        List::new(&self.lists[position])
    }
}

pub(super) fn make_tables<A: Aggregate>(
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
