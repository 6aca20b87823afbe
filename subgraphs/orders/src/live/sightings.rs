//! Which position of an event in the log counts: the one where it was first seen.
//!
//! A relay that crashed publishes events again, so the log may hold (order, revision) twice. Per order the log shows the
//! revisions in order as first seen; a repetition never runs ahead of them. So whoever has seen the first sighting of a
//! revision knows for all that follows: a greater revision is new, any other a repetition. Whoever has not asks the audit
//! trail, which notes where it first saw each event.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tandem_kit::{
    kafka::message::Position,
    shutdown::Shutdown,
    store::{ChangeLog, ChangesRequest},
};
use tokio::time::Instant;

use crate::domain::OrderChangeEvent;

/// Orders remembered in each of two generations.
const REMEMBERED: usize = 50_000;
/// How far the clocks of instances may differ.
pub(super) const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);
/// How long the audit trail may take to reach an event before the event counts as new: seen twice is better than not at all.
const AUDIT_WAIT: Duration = Duration::from_secs(10);
/// First and longest pause between two looks at the audit trail.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// What is known of an event without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is its first sighting.
    New,
    /// It was sighted before.
    Repeated,
    /// Ask the audit trail.
    Unknown,
}

/// The newest revision sighted of each order, as far as memory is bounded.
#[derive(Debug)]
pub(super) struct Memory {
    young: HashMap<String, (i64, DateTime<Utc>)>,
    old: HashMap<String, (i64, DateTime<Utc>)>,
    capacity: usize,
    /// An event made later than this cannot have been sighted and forgotten.
    certain_after: DateTime<Utc>,
}

impl Memory {
    /// The memory of one who reads everything from now on: what is made from now on cannot have been in the log before.
    pub(super) fn from_now() -> Self {
        Self::with_capacity(REMEMBERED, Utc::now() + CLOCK_SKEW)
    }

    /// The memory of one who reads the past.
    pub(super) fn of_the_past() -> Self {
        Self::with_capacity(REMEMBERED, DateTime::<Utc>::MAX_UTC)
    }

    pub(super) fn with_capacity(capacity: usize, certain_after: DateTime<Utc>) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
            certain_after,
        }
    }

    pub(super) fn judge(&self, event: &OrderChangeEvent) -> Verdict {
        let known = self
            .young
            .get(&event.id)
            .or_else(|| self.old.get(&event.id));
        match known {
            Some((newest, _)) if event.revision > *newest => Verdict::New,
            Some(_) => Verdict::Repeated,
            None if event.changed_at.as_datetime() > self.certain_after => Verdict::New,
            None => Verdict::Unknown,
        }
    }

    /// Notes a first sighting.
    pub(super) fn sighted(&mut self, event: &OrderChangeEvent) {
        if self.young.len() >= self.capacity {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let newest = forgotten.into_values().map(|(_, made)| made).max();
            self.certain_after = self.certain_after.max(newest.unwrap_or_default());
        }
        let made = event.changed_at.as_datetime();
        self.young.insert(event.id.clone(), (event.revision, made));
    }
}

/// The audit trail as the judge of what memory does not know.
#[derive(Clone)]
pub(super) struct Sightings {
    changes: Arc<dyn ChangeLog>,
    shutdown: Shutdown,
}

impl Sightings {
    pub(super) fn new(changes: Arc<dyn ChangeLog>, shutdown: Shutdown) -> Self {
        Self { changes, shutdown }
    }

    /// For each event whether this position is its first sighting. Waits for the audit trail if it is behind.
    pub(super) async fn are_first(&self, events: &[(&OrderChangeEvent, Position)]) -> Vec<bool> {
        let mut answers: Vec<Option<bool>> = vec![None; events.len()];
        let deadline = Instant::now() + AUDIT_WAIT;
        let mut pause = FIRST_LOOK;
        loop {
            let open: Vec<usize> = (0..events.len())
                .filter(|index| answers[*index].is_none())
                .collect();
            if open.is_empty() {
                break;
            }
            let requests: Vec<ChangesRequest> = open
                .iter()
                .map(|index| ChangesRequest {
                    subject: events[*index].0.id.clone(),
                    after_revision: events[*index].0.revision - 1,
                    limit: 1,
                })
                .collect();
            match self.changes.changes(&requests).await {
                Ok(found) => {
                    for (index, records) in open.into_iter().zip(found) {
                        let (event, position) = events[index];
                        answers[index] = records
                            .first()
                            .filter(|record| record.revision == event.revision)
                            .map(|record| {
                                (record.partition, record.offset)
                                    == (position.partition, position.offset)
                            });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "live updates wait for the audit trail");
                }
            }
            let all_known = answers.iter().all(Option::is_some);
            if all_known || Instant::now() >= deadline || !self.shutdown.sleep(pause).await {
                break;
            }
            pause = (pause * 2).min(LONGEST_LOOK);
        }
        let unknown = answers.iter().filter(|answer| answer.is_none()).count();
        if unknown > 0 {
            tracing::warn!(
                unknown,
                "the audit trail did not reach these events in time; they are taken for new"
            );
        }
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or(true))
            .collect()
    }
}
