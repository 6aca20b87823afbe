//! The store ports of the event path on a simulated database.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tandem_event_path::{
    outbox::{Backlog, Outbox, PendingEvent},
    store::{
        AggregateStore, ChangeLog, ChangeRecord, ChangesRequest, DeadLetter, DeadLetterFilter,
        DeadLetterStore, Filter, LetterId, Outcome, PageRequest, PublishedRow, Registry, Span,
        SpanRequest, StoreError, Stored, Write, no_such_list,
    },
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

use super::{
    Database,
    db::{Db, bytes},
};
use crate::faults::Fault;

/// A write is sent within this time after its decision, in nanoseconds.
const JUST_NOW: u64 = 1_000_000_000;

#[async_trait]
impl<A: Aggregate> Outbox for Database<A> {
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        let after = after_key.map(str::to_owned);
        self.read(move |db| db.pending(recorded_before, after.as_deref(), limit))
            .await
    }

    async fn clear(&self, mut published: Vec<(String, i64)>) -> Result<(), StoreError> {
        published.sort();
        self.write("clear", move |db| db.clear(&published)).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.read(Db::backlog).await
    }
}

fn has_list<A: Aggregate>(filter: &Filter) -> Result<(), StoreError> {
    let fields: Vec<&str> = filter.0.iter().map(|(field, _)| *field).collect();
    if fields.is_empty() || A::INDEXES.contains(&fields.as_slice()) {
        return Ok(());
    }
    Err(no_such_list::<A>(filter))
}

fn page<A: Aggregate>(db: &Db<A>, request: &PageRequest) -> Vec<A> {
    let PageRequest {
        filter,
        after,
        limit,
    } = request;
    let states = db.aggregates.values().map(|row| &row.stored.state);
    let is_in = |state: &&A| {
        let mut fields = filter.0.iter();
        after.as_deref().is_none_or(|after| state.id() > after)
            && fields.all(|(field, wanted)| state.field(field).as_ref() == Some(wanted))
    };
    states.filter(is_in).take(*limit).cloned().collect()
}

fn span<A: Aggregate>(db: &Db<A>, request: &SpanRequest) -> Span<A> {
    let states = db.aggregates.values().map(|row| &row.stored.state);
    let mut places: Vec<((String, String), &A)> = states
        .filter_map(|state| Some(((state.field(request.field)?, state.id().to_owned()), state)))
        .filter(|((value, _), _)| *value >= request.first && *value <= request.last)
        .filter(|(place, _)| request.after.as_ref().is_none_or(|after| place > after))
        .collect();
    places.sort_by(|one, other| one.0.cmp(&other.0));
    let more = places.len() > request.limit;
    let found = places.into_iter().take(request.limit);
    Span {
        found: found.map(|(_, state)| state.clone()).collect(),
        more,
    }
}

#[async_trait]
impl<A: Aggregate> AggregateStore<A> for Database<A> {
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<A>>>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |db| {
            let stored = |id| db.aggregates.get(id).map(|row| row.stored.clone());
            ids.iter().map(stored).collect()
        })
        .await
    }

    async fn write(&self, write: &Write<A>) -> Result<Outcome, StoreError> {
        let (write, version) = (write.clone(), self.0.world.number());
        let (id, revision) = (write.state.id().to_owned(), write.state.revision());
        // The decision was made from the data of a deposed primary.
        let trusts = self.0.faults.has(Fault::DeposedStateTrusted)
            && self
                .cut_off_since(self.0.world.elapsed().saturating_sub(JUST_NOW))
                .is_some();
        let job = move |db: &mut Db<A>| {
            if trusts {
                db.write_if(&write, version, false)
            } else {
                db.write(&write, version)
            }
        };
        let outcome = Database::write(self, "write", job).await;
        let outcome = outcome.and_then(|written| written);
        let (world, name) = (&self.0.world, self.0.name);
        world.note(|| format!("store {name} {id} {revision} {outcome:?}"));
        outcome
    }

    async fn first_answer(
        &self,
        idempotency_key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError> {
        let key = idempotency_key.clone();
        self.read(move |db| db.first_answer(&key)).await
    }

    async fn keep_answer(
        &self,
        idempotency_key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError> {
        let (key, state) = (idempotency_key.clone(), state.clone());
        let number = self.0.world.number();
        Database::write(self, "keep", move |db| {
            db.keep_answer(&key, &state, at, number)
        })
        .await
    }

    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        Database::write(self, "forget", move |db| db.forget_answers(before)).await
    }

    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        Database::write(self, "forget", move |db| {
            db.empty_answers(|id| ids.iter().any(|it| it == id));
        })
        .await
    }

    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError> {
        for request in requests {
            has_list::<A>(&request.filter)?;
        }
        let requests = requests.to_vec();
        self.read(move |db| requests.iter().map(|request| page(db, request)).collect())
            .await
    }

    async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError> {
        has_list::<A>(&request.filter())?;
        let request = request.clone();
        self.read(move |db| span(db, &request)).await
    }

    async fn restore(&self, states: &[A]) -> Result<(), StoreError> {
        if states.is_empty() {
            return Ok(());
        }
        let (states, version) = (states.to_vec(), self.0.world.number());
        Database::write(self, "restore", move |db| db.restore(&states, version)).await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let after = after.cloned();
        self.read(move |db| db.published(after.as_ref(), limit))
            .await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let seen = seen.to_vec();
        Database::write(self, "remove", move |db| db.remove(&seen)).await
    }

    async fn revert(&self, states: &[(PublishedRow, A)]) -> Result<u64, StoreError> {
        let (states, version) = (states.to_vec(), self.0.world.number());
        Database::write(self, "revert", move |db| db.revert(&states, version)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|_| ()).await
    }
}

#[async_trait]
impl<A: Aggregate> ChangeLog for Database<A> {
    async fn append(&self, records: Vec<ChangeRecord>) -> Result<(), StoreError> {
        let version = self.0.world.number();
        self.write("append", move |db| {
            for record in &records {
                let place = (record.subject.clone(), record.revision);
                let entry = db.changes.entry(place);
                entry.or_insert_with(|| (record.clone(), version));
            }
        })
        .await
    }

    async fn put_back(&self, records: &[ChangeRecord]) -> Result<u64, StoreError> {
        let (records, version) = (records.to_vec(), self.0.world.number());
        self.write("put back", move |db| {
            let mut replaced = 0;
            for record in &records {
                let place = (record.subject.clone(), record.revision);
                let held = db.changes.get(&place).map(|(held, _)| held);
                if held == Some(record) {
                    continue;
                }
                replaced += u64::from(held.is_some());
                db.changes.insert(place, (record.clone(), version));
            }
            replaced
        })
        .await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let after = after.map(|after| (after.id.clone(), after.revision));
        self.read(move |db| {
            let rows = db.changes.iter();
            rows.filter(|(place, _)| after.as_ref().is_none_or(|after| *place > after))
                .take(limit)
                .map(|((subject, revision), (_, version))| PublishedRow {
                    id: subject.clone(),
                    revision: *revision,
                    version: bytes(*version),
                })
                .collect()
        })
        .await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let seen = seen.to_vec();
        self.write("remove", move |db| {
            let mut removed = 0;
            for seen in &seen {
                let place = (seen.id.clone(), seen.revision);
                let held = db.changes.get(&place);
                if held.is_some_and(|(_, version)| bytes(*version) == seen.version) {
                    db.changes.remove(&place);
                    removed += 1;
                }
            }
            removed
        })
        .await
    }

    async fn changes(
        &self,
        requests: &[ChangesRequest],
    ) -> Result<Vec<Vec<ChangeRecord>>, StoreError> {
        let requests = requests.to_vec();
        self.read(move |db| {
            let page = |request: &ChangesRequest| {
                let ChangesRequest {
                    subject,
                    after_revision,
                    limit,
                } = request;
                let first = (subject.clone(), after_revision + 1);
                let last = (subject.clone(), i64::MAX);
                let records = db.changes.range(first..=last);
                records
                    .take(*limit)
                    .map(|(_, (it, _))| it.clone())
                    .collect()
            };
            requests.iter().map(page).collect()
        })
        .await
    }
}

fn takes(filter: &DeadLetterFilter, letter: &DeadLetter) -> bool {
    let is = |wanted: &Option<String>, held: &str| wanted.as_deref().is_none_or(|it| it == held);
    is(&filter.consumer, &letter.consumer) && is(&filter.key, &letter.key)
}

#[async_trait]
impl<A: Aggregate> DeadLetterStore for Database<A> {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        self.write("park", move |db| {
            for letter in &letters {
                let entry = db.letters.entry(letter.id());
                entry.or_insert_with(|| letter.clone());
            }
        })
        .await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read(move |db| {
            let letters = db.letters.iter();
            letters
                .filter(|(id, _)| after.as_ref().is_none_or(|after| *id > after))
                .filter(|(_, letter)| takes(&filter, letter))
                .take(limit)
                .map(|(_, letter)| letter.clone())
                .collect()
        })
        .await
    }

    async fn dead_letter(&self, id: &LetterId) -> Result<Option<DeadLetter>, StoreError> {
        let id = id.clone();
        self.read(move |db| db.letters.get(&id).cloned()).await
    }

    async fn count(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        let filter = filter.clone();
        self.read(move |db| db.letters.values().filter(|it| takes(&filter, it)).count() as u64)
            .await
    }

    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError> {
        let consumer = consumer.to_owned();
        self.read(move |db| {
            let letters = db.letters.values().filter(|it| it.consumer == consumer);
            let mut keys: Vec<String> = letters.map(|letter| letter.key.clone()).collect();
            keys.sort();
            keys.dedup();
            keys
        })
        .await
    }

    async fn unpark(&self, id: &LetterId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.write("unpark", move |db| db.letters.remove(&id).is_some())
            .await
    }

    async fn unpark_key(&self, consumer: &str, key: &str) -> Result<u64, StoreError> {
        let (consumer, key) = (consumer.to_owned(), key.to_owned());
        self.write("unpark", move |db| {
            let count = db.letters.len();
            let is_it = |it: &DeadLetter| it.consumer == consumer && it.key == key;
            db.letters.retain(|_, letter| !is_it(letter));
            (count - db.letters.len()) as u64
        })
        .await
    }
}

#[async_trait]
impl<A: Aggregate> Registry for Database<A> {
    async fn recall(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.read(move |db| db.registry.get(&name).cloned()).await
    }

    async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write("remember", move |db| {
            let entry = db.registry.entry(name.clone());
            entry.or_insert_with(|| value.clone()).clone()
        })
        .await
    }

    async fn note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write("note", move |db| {
            db.registry.insert(name.clone(), value.clone());
        })
        .await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write("forget", move |db| {
            db.registry.remove(&name);
        })
        .await
    }

    async fn recall_all(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |db| {
            let names = db.registry.iter();
            names
                .filter(|(name, _)| name.starts_with(&prefix))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        })
        .await
    }
}
