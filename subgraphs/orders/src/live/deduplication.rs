//! Which position of an event in the log counts: the one where it was first seen.
//!
//! A relay that crashed publishes events again, so the log may hold (order, revision) twice. Per order the log shows the
//! revisions in order as first seen; a repetition never runs ahead of them. So whoever has seen the first occurrence of a
//! revision knows for all that follows: the next revision is new, one that was seen a repetition. Whoever has not asks the audit
//! trail, which notes where it first saw each event.
//!
//! Where partitions were added, an order's changes are in two of them and may be read out of order: a revision that leaves some out
//! says nothing of those, and is told apart as early.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tandem_event_path::fault::{self, Fault};
use tandem_event_path::store::{ChangeLog, ChangesRequest};
use tandem_model::message::Position;
use tandem_runtime::shutdown::Shutdown;

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
pub(super) enum Occurrence {
    /// This is its first occurrence.
    New,
    /// It was seen before.
    Repeated,
    /// Ask the audit trail.
    Unknown,
}

/// The revisions of an order that were seen last, without a gap.
#[derive(Clone, Copy, Debug)]
struct Revisions {
    oldest: i64,
    newest: i64,
    /// When the newest was made.
    made: DateTime<Utc>,
}

/// The newest revisions seen of each order, as far as memory is bounded.
#[derive(Debug)]
pub(super) struct SeenRevisions {
    young: HashMap<String, Revisions>,
    old: HashMap<String, Revisions>,
    capacity: usize,
    /// An event made later than this cannot have been seen and forgotten.
    certain_after: DateTime<Utc>,
}

impl SeenRevisions {
    /// The memory of one who reads everything from now on: what is made from now on cannot have been in the log before.
    pub(super) fn from(now: DateTime<Utc>) -> Self {
        Self::with_capacity(REMEMBERED, now + CLOCK_SKEW)
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

    fn known(&self, order_id: &str) -> Option<&Revisions> {
        let young = self.young.get(order_id);
        young.or_else(|| self.old.get(order_id))
    }

    pub(super) fn classify(&self, event: &OrderChangeEvent) -> Occurrence {
        match self.known(&event.id) {
            _ if fault::is_on(Fault::RepeatsNotKnown) => Occurrence::New,
            Some(known) if event.revision > known.newest => Occurrence::New,
            Some(known) if event.revision >= known.oldest => Occurrence::Repeated,
            // Older than all that was seen: forgotten, or read after what follows it.
            Some(_) => Occurrence::Unknown,
            None if event.changed_at.as_datetime() > self.certain_after => Occurrence::New,
            None => Occurrence::Unknown,
        }
    }

    /// Whether changes between the newest that was seen and this one have not been.
    pub(super) fn leaves_out(&self, event: &OrderChangeEvent) -> bool {
        self.known(&event.id)
            .is_some_and(|known| event.revision > known.newest.saturating_add(1))
    }

    /// Notes a first occurrence.
    pub(super) fn seen(&mut self, event: &OrderChangeEvent) {
        let (revision, made) = (event.revision, event.changed_at.as_datetime());
        let alone = Revisions {
            oldest: revision,
            newest: revision,
            made,
        };
        let known = match self.known(&event.id).copied() {
            Some(known) if revision == known.newest.saturating_add(1) => Revisions {
                oldest: known.oldest,
                ..alone
            },
            Some(known) if revision <= known.newest => Revisions {
                oldest: if revision == known.oldest - 1 {
                    revision
                } else {
                    known.oldest
                },
                ..known
            },
            _ => alone,
        };
        if self.young.len() >= self.capacity {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let newest = forgotten.into_values().map(|known| known.made).max();
            self.certain_after = self.certain_after.max(newest.unwrap_or_default());
        }
        self.young.insert(event.id.clone(), known);
    }
}

/// What the audit trail says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it is its first occurrence.
    pub(super) is_first: bool,
    /// Where the change before it was first seen, if the trail has it.
    pub(super) predecessor: Option<Position>,
}

/// The audit trail as the classify of what memory does not know.
#[derive(Clone)]
pub(super) struct Deduplication {
    changes: Arc<dyn ChangeLog>,
    shutdown: Shutdown,
}

impl Deduplication {
    pub(super) fn new(changes: Arc<dyn ChangeLog>, shutdown: Shutdown) -> Self {
        Self { changes, shutdown }
    }

    /// For each event whether this position is its first occurrence. Waits for the audit trail if it is behind.
    pub(super) async fn judge(&self, events: &[(&OrderChangeEvent, Position)]) -> Vec<Verdict> {
        let mut answers: Vec<Option<Verdict>> = vec![None; events.len()];
        let clock = self.shutdown.clock();
        let deadline = clock.instant() + AUDIT_WAIT;
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
                    // With the one before it.
                    after_revision: events[*index].0.revision.saturating_sub(2),
                    limit: 2,
                })
                .collect();
            match self.changes.changes(&requests).await {
                Ok(found) => {
                    for (index, records) in open.into_iter().zip(found) {
                        let (event, position) = events[index];
                        let of_revision = |revision: i64| {
                            let mut records = records.iter();
                            let record = records.find(|record| record.revision == revision)?;
                            Some(Position {
                                partition: record.partition,
                                offset: record.offset,
                            })
                        };
                        answers[index] = of_revision(event.revision).map(|first| Verdict {
                            is_first: first == position,
                            predecessor: of_revision(event.revision - 1),
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "live updates wait for the audit trail");
                }
            }
            let all_known = answers.iter().all(Option::is_some);
            if all_known || clock.instant() >= deadline || !self.shutdown.sleep(pause).await {
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
            .map(|answer| {
                answer.unwrap_or(Verdict {
                    is_first: true,
                    predecessor: None,
                })
            })
            .collect()
    }
}
