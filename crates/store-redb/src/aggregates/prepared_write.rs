//! The write of a command: state, pending event and first answer, all in one transaction.

use std::collections::HashSet;

use redb::WriteTransaction;

use super::{outbox::first_pending, state_row::StateRow, tables::Names};
use crate::{Codec, WorkError, answers};
use tandem_event_path::store::{Outcome, Write};
use tandem_model::{aggregate::Aggregate, request_key::RequestKey};

/// A write with all its parts encoded.
pub(super) struct Prepared {
    expected_revision: i64,
    state: StateRow,
    recorded_at: i64,
    event: Vec<u8>,
    idempotency_key: Option<RequestKey>,
    forget_answers: bool,
}

impl Prepared {
    pub(super) fn new<A: Aggregate>(write: &Write<A>, codec: &Codec) -> Result<Self, WorkError> {
        Ok(Self {
            expected_revision: write.expected_revision,
            state: StateRow::new(&write.state, codec)?,
            recorded_at: write.event.recorded_at.timestamp_millis(),
            event: codec.encode(write.state.id(), &write.event)?,
            idempotency_key: write.idempotency_key.clone(),
            forget_answers: write.forget_answers,
        })
    }

    pub(super) fn apply(
        &self,
        transaction: &WriteTransaction,
        names: &Names,
    ) -> Result<Outcome, WorkError> {
        let id = self.state.id.as_str();
        let mut states = transaction.open_table(names.state())?;
        let stored = self.state.stored(&states)?;
        if stored.revision != self.expected_revision {
            return Ok(Outcome::Stale);
        }
        // The key is checked first, because a refused write must change nothing.
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
