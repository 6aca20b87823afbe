//! The row of a state with its places in the lists: written together, so that every list shows what is stored.

use redb::{ReadableTable, WriteTransaction};

use super::{
    list_key::list_keys,
    tables::{Names, WritableStates},
};
use crate::{Codec, WorkError};
use tandem_model::aggregate::Aggregate;

/// A state with everything encoded, so that the writer thread only moves bytes.
pub(super) struct StateRow {
    pub(super) id: String,
    pub(super) revision: i64,
    lists: Vec<Vec<u8>>,
    pub(super) bytes: Vec<u8>,
}

/// What is stored of an aggregate now: revision 0 and no lists when there is none.
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

    /// Writes the state and moves it from the lists that it was in to those that it is in now.
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

    /// As [`Self::put`], unless what is stored is newer. One walk down the tree and no look before: that is rare.
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
