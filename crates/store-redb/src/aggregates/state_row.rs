//! The row of a state and its entries in the lists. They are written together, so that the lists always match the
//! state.

use redb::{ReadableTable, WriteTransaction};

use super::{
    list_key::list_keys,
    tables::{Names, WritableStates},
};
use crate::{Codec, WorkError};
use tandem_model::aggregate::Aggregate;

/// A state with all its parts encoded, so that the writer thread only copies bytes.
pub(super) struct StateRow {
    pub(super) id: String,
    pub(super) revision: i64,
    lists: Vec<Vec<u8>>,
    pub(super) bytes: Vec<u8>,
}

/// The stored row of an aggregate: revision 0 and no lists if there is none.
#[derive(Default)]
pub(super) struct StoredRow {
    pub(super) revision: i64,
    pub(super) lists: Vec<Vec<u8>>,
}

impl From<(i64, Vec<&[u8]>, &[u8])> for StoredRow {
    fn from((revision, lists, _): (i64, Vec<&[u8]>, &[u8])) -> Self {
        Self {
            revision,
            lists: lists.into_iter().map(<[u8]>::to_vec).collect(),
        }
    }
}

impl StateRow {
    pub(super) fn new<A: Aggregate>(state: &A, codec: &Codec) -> Result<Self, WorkError> {
        Ok(Self {
            id: state.id().to_owned(),
            revision: state.revision(),
            lists: list_keys(state)?,
            bytes: codec.encode(state.id(), state)?,
        })
    }

    pub(super) fn stored(&self, states: &WritableStates<'_>) -> Result<StoredRow, WorkError> {
        let row = states.get(self.id.as_str())?;
        Ok(row.map_or_else(StoredRow::default, |row| StoredRow::from(row.value())))
    }

    /// Writes the state, and moves it from its old lists to its new ones.
    pub(super) fn put(
        &self,
        transaction: &WriteTransaction,
        states: &mut WritableStates<'_>,
        stored: &StoredRow,
        names: &Names,
    ) -> Result<(), WorkError> {
        states.insert(self.id.as_str(), self.value())?;
        self.list(transaction, stored, names)
    }

    /// Like [`Self::put`], unless the stored state is newer. It inserts first and puts a newer row back afterwards.
    /// This takes one walk down the tree, because newer rows are rare.
    pub(super) fn put_over_older(
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

    /// Moves the aggregate from its old lists to its new ones.
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
