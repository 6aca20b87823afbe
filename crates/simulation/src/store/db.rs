//! The content of a service's database: aggregates with their pending events, first answers, audit trail, dead letters,
//! the replica, and the registry.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use chrono::{DateTime, Utc};
use tandem_event_path::{
    outbox::PendingEvent,
    signing::Signer,
    store::{
        Backlog, ChangeRecord, DeadLetter, KEPT_ANSWERS, LetterId, Outcome, PublishedRow,
        StoreError, Stored, Write,
    },
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};
use tandem_orders::replica::{Replaces, ReplicaCustomer};

use crate::faults::{Fault, Faults};

/// A stored aggregate.
#[derive(Clone, Debug)]
pub struct Row<A> {
    /// The aggregate with its pending events.
    pub stored: Stored<A>,
    /// Distinguishes this write from others.
    pub version: u64,
}

/// A first answer.
#[derive(Clone, Debug)]
pub struct Answer<A> {
    /// The id of the aggregate.
    pub id: String,
    /// The state in the answer. `None` if it was removed: then the present state is the answer.
    pub state: Option<A>,
    input: String,
    at: DateTime<Utc>,
    number: u64,
}

/// The content of a database.
#[derive(Clone, Debug)]
pub struct Db<A> {
    /// The planted faults.
    pub faults: Faults,
    /// The number of pending events at which an aggregate has no room for one more. `None` if there is no limit.
    pub most_pending: Option<usize>,
    /// The aggregates, by id.
    pub aggregates: BTreeMap<String, Row<A>>,
    /// The first answers, by key.
    pub answers: BTreeMap<String, Answer<A>>,
    /// The audit trail, by subject and revision. Each entry has its version.
    pub changes: BTreeMap<(String, i64), (ChangeRecord, u64)>,
    /// The dead letters, by id.
    pub letters: BTreeMap<LetterId, DeadLetter>,
    /// The registry, by name.
    pub registry: BTreeMap<String, String>,
    /// The replica, by id. Each customer has its version.
    pub replica: BTreeMap<String, (ReplicaCustomer, u64)>,
    /// How many times early writes were confirmed as durable.
    pub confirmed: u64,
}

impl<A> Db<A> {
    /// A number that changes with every write that changes something.
    #[must_use]
    pub fn versions(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (id, row) in &self.aggregates {
            (id, row.version, row.stored.pending.len()).hash(&mut hasher);
        }
        for (key, answer) in &self.answers {
            (key, answer.number, answer.state.is_some()).hash(&mut hasher);
        }
        for (place, (_, version)) in &self.changes {
            (place, version).hash(&mut hasher);
        }
        for (id, (_, version)) in &self.replica {
            (id, version).hash(&mut hasher);
        }
        let letters = self.letters.len();
        (letters, self.confirmed, &self.registry).hash(&mut hasher);
        hasher.finish()
    }

    /// The pinned signer of a service. The pin also tells which records were written before signatures were required.
    #[must_use]
    pub fn pinned(&self, service: &str) -> Option<Signer> {
        let text = self.registry.get(&format!("signer/{service}"))?;
        serde_json::from_str(text).ok()
    }
}

impl<A> Default for Db<A> {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            most_pending: None,
            aggregates: BTreeMap::new(),
            answers: BTreeMap::new(),
            changes: BTreeMap::new(),
            letters: BTreeMap::new(),
            registry: BTreeMap::new(),
            replica: BTreeMap::new(),
            confirmed: 0,
        }
    }
}

/// A version as bytes.
#[must_use]
pub fn bytes(version: u64) -> Vec<u8> {
    version.to_be_bytes().to_vec()
}

impl<A: Aggregate> Db<A> {
    /// See [`tandem_event_path::store::AggregateStore::write`].
    ///
    /// # Errors
    /// When the aggregate would be too large.
    pub fn write(&mut self, write: &Write<A>, version: u64) -> Result<Outcome, StoreError> {
        self.write_if(write, version, !self.faults.has(Fault::RevisionNotChecked))
    }

    /// The same, with or without a check of the stored revision.
    ///
    /// # Errors
    /// When the aggregate would be too large.
    pub fn write_if(
        &mut self,
        write: &Write<A>,
        version: u64,
        checks_revision: bool,
    ) -> Result<Outcome, StoreError> {
        let id = write.state.id();
        if self.answer(write.idempotency_key.as_ref()).is_some() {
            return Ok(Outcome::KeyTaken);
        }
        let held = self.aggregates.get(id);
        let is_stale = held.map_or(0, |row| row.stored.state.revision()) != write.expected_revision;
        if is_stale && checks_revision {
            return Ok(Outcome::Stale);
        }
        let mut pending = held.map_or_else(Vec::new, |row| row.stored.pending.clone());
        if self.most_pending.is_some_and(|most| pending.len() >= most) {
            let reason = format!("{id} has no room for one more pending event");
            return Err(StoreError::Unavailable(reason));
        }
        pending.push(write.event.clone());
        if write.forget_answers && !self.faults.has(Fault::AnswersNotForgotten) {
            self.empty_answers(|it| it == id);
        }
        let stored = Stored {
            state: write.state.clone(),
            pending,
        };
        self.aggregates
            .insert(id.to_owned(), Row { stored, version });
        if let Some(key) = &write.idempotency_key
            && !self.faults.has(Fault::KeyNotKept)
        {
            self.keep(key, &write.state, write.event.recorded_at, version);
        }
        Ok(Outcome::Written)
    }

    /// The first answer under a key.
    fn answer(&self, key: Option<&RequestKey>) -> Option<&Answer<A>> {
        key?.names().find_map(|name| self.answers.get(name))
    }

    /// See [`tandem_event_path::store::AggregateStore::first_answer`].
    #[must_use]
    pub fn first_answer(&self, key: &RequestKey) -> Option<FirstAnswer<A>> {
        let answer = self.answer(Some(key))?;
        let present = || Some(self.aggregates.get(&answer.id)?.stored.state.clone());
        Some(FirstAnswer {
            state: answer.state.clone().or_else(present)?,
            input: Some(answer.input.clone()),
        })
    }

    fn keep(&mut self, key: &RequestKey, state: &A, at: DateTime<Utc>, number: u64) {
        let answer = Answer {
            id: state.id().to_owned(),
            state: Some(state.clone()),
            input: key.input.clone(),
            at,
            number,
        };
        self.answers.insert(key.key.clone(), answer);
        let answers = self.answers.values();
        let of_it = answers.filter(|answer| answer.id == state.id());
        let mut kept: Vec<u64> = of_it.map(|answer| answer.number).collect();
        if kept.len() > KEPT_ANSWERS {
            kept.sort_unstable();
            let oldest = kept[0];
            self.answers.retain(|_, answer| answer.number != oldest);
        }
    }

    /// Removes the states from the answers of these aggregates. Their keys stay used.
    pub fn empty_answers(&mut self, whose: impl Fn(&str) -> bool) {
        for answer in self.answers.values_mut().filter(|it| whose(&it.id)) {
            answer.state = None;
        }
    }

    /// See [`tandem_event_path::store::AggregateStore::keep_answer`].
    pub fn keep_answer(
        &mut self,
        key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
        number: u64,
    ) -> Outcome {
        if self.answer(Some(key)).is_some() {
            return Outcome::KeyTaken;
        }
        let held = self.aggregates.get(state.id());
        if held.is_none_or(|row| row.stored.state.revision() != state.revision()) {
            return Outcome::Stale;
        }
        self.keep(key, state, at, number);
        Outcome::Written
    }

    /// See [`tandem_event_path::store::AggregateStore::forget_answers`].
    pub fn forget_answers(&mut self, before: DateTime<Utc>) -> u64 {
        let count = self.answers.len();
        self.answers.retain(|_, answer| answer.at >= before);
        (count - self.answers.len()) as u64
    }

    /// See [`tandem_event_path::store::AggregateStore::restore`].
    pub fn restore(&mut self, states: &[A], version: u64) {
        for state in states {
            let pending = match self.aggregates.get(state.id()) {
                Some(row)
                    if row.stored.state.revision() > state.revision()
                        && !self.faults.has(Fault::RestoredOverNewer) =>
                {
                    continue;
                }
                Some(row) => row.stored.pending.clone(),
                None => Vec::new(),
            };
            let stored = Stored {
                state: state.clone(),
                pending,
            };
            let row = Row { stored, version };
            self.aggregates.insert(state.id().to_owned(), row);
        }
    }

    /// Whether an aggregate has not changed since it was read, and has no pending events.
    fn is_as_seen(&self, seen: &PublishedRow) -> bool {
        self.aggregates
            .get(&seen.id)
            .is_some_and(|row| row.stored.pending.is_empty() && bytes(row.version) == seen.version)
    }

    /// See [`tandem_event_path::store::AggregateStore::remove`].
    pub fn remove(&mut self, seen: &[PublishedRow]) -> u64 {
        let mut removed = 0;
        for seen in seen {
            if self.is_as_seen(seen) {
                self.aggregates.remove(&seen.id);
                self.answers.retain(|_, kept| kept.id != seen.id);
                removed += 1;
            }
        }
        removed
    }

    /// See [`tandem_event_path::store::AggregateStore::revert`].
    pub fn revert(&mut self, states: &[(PublishedRow, A)], version: u64) -> u64 {
        let mut done = 0;
        for (seen, state) in states {
            if self.is_as_seen(seen) {
                let stored = Stored {
                    state: state.clone(),
                    pending: Vec::new(),
                };
                self.aggregates
                    .insert(seen.id.clone(), Row { stored, version });
                done += 1;
            }
        }
        done
    }

    /// See [`tandem_event_path::store::AggregateStore::published`].
    #[must_use]
    pub fn published(&self, after: Option<&PublishedRow>, limit: usize) -> Vec<PublishedRow> {
        let behind = |id: &str| after.is_none_or(|after| id > after.id.as_str());
        let rows = self.aggregates.iter();
        rows.filter(|(id, row)| behind(id) && row.stored.pending.is_empty())
            .take(limit)
            .map(|(id, row)| PublishedRow {
                id: id.clone(),
                revision: row.stored.state.revision(),
                version: bytes(row.version),
            })
            .collect()
    }

    /// See [`tandem_event_path::outbox::Outbox::pending`].
    #[must_use]
    pub fn pending(
        &self,
        before: DateTime<Utc>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<PendingEvent> {
        let mut found = Vec::new();
        for (id, row) in &self.aggregates {
            if found.len() >= limit {
                break;
            }
            let pending = &row.stored.pending;
            let oldest = pending.iter().map(|event| event.recorded_at).min();
            if after.is_none_or(|after| id.as_str() > after)
                && oldest.is_some_and(|oldest| oldest <= before)
            {
                found.extend(pending.iter().cloned());
            }
        }
        found
    }

    /// See [`tandem_event_path::outbox::Outbox::clear`].
    pub fn clear(&mut self, published: &[(String, i64)]) {
        for (id, revision) in published {
            if let Some(row) = self.aggregates.get_mut(id) {
                let last = if self.faults.has(Fault::ClearedTooMuch) {
                    i64::MAX
                } else {
                    *revision
                };
                row.stored.pending.retain(|event| event.revision > last);
            }
        }
    }

    /// See [`tandem_event_path::outbox::Outbox::backlog`].
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let pending = || self.aggregates.values().flat_map(|row| &row.stored.pending);
        Backlog {
            events: pending().count() as u64,
            oldest: pending().map(|event| event.recorded_at).min(),
        }
    }

    /// See [`tandem_orders::replica::ReplicaStore::upsert`].
    pub fn upsert(&mut self, customers: &[ReplicaCustomer], replaces: Replaces, version: u64) {
        for customer in customers {
            let older_wins = self.faults.has(Fault::OlderRevisionWins);
            let is_kept = self.replica.get(&customer.id).is_some_and(|(held, _)| {
                held.revision > customer.revision
                    || held.revision == customer.revision && replaces == Replaces::Older
            });
            if !is_kept || older_wins {
                let row = (customer.clone(), version);
                self.replica.insert(customer.id.clone(), row);
            }
        }
    }
}
