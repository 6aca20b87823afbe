//! Looks up in the audit trail whether the position of an event is its first occurrence, if memory does not know it.
//! The trail records where it first saw each event, so its answer is final, and nothing else counts as an answer. While
//! the trail is behind, the lookup waits, however long that takes. Only the order of the event waits with it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use tandem_event_path::store::{ChangeLog, ChangesRequest, StoreError};
use tandem_model::message::Position;
use tandem_runtime::{clock::Instant, notified, shutdown::Shutdown};
use tokio::sync::Notify;

use crate::domain::OrderChangeEvent;

/// The first and the longest pause between two lookups of the same event. They have no jitter, so that events that are
/// asked for together are looked up together in one request.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// The maximum number of events in one request.
const TOGETHER: usize = 500;

/// The answer of the audit trail about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether the position is the event's first occurrence.
    pub(super) is_first: bool,
    /// The position where the previous change was first seen, if the trail has it.
    pub(super) predecessor: Option<Position>,
}

/// An event that waits for an answer.
#[derive(Debug)]
pub(super) struct Lookup {
    order_id: String,
    revision: i64,
    position: Position,
    answer: OnceLock<Answer>,
}

impl Lookup {
    /// The answer, if the audit trail has reached the event.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.answer.get().copied()
    }
}

/// A lookup, and the time of its next attempt.
struct Open {
    lookup: Weak<Lookup>,
    next: Instant,
    pause: Duration,
}

/// Asks the audit trail about events that memory does not know. Clones share the lookups.
#[derive(Clone)]
pub(super) struct AuditLookup(Arc<Inner>);

struct Inner {
    changes: Arc<dyn ChangeLog>,
    /// Bounded by the number of waiting callers: a lookup that nobody holds is dropped.
    open: Mutex<VecDeque<Open>>,
    asked: Notify,
    /// Notified whenever there are new answers.
    decided: Notify,
    shutdown: Shutdown,
}

impl AuditLookup {
    /// Starts the task that reads this audit trail whenever somebody waits for an answer.
    pub(super) fn start(changes: Arc<dyn ChangeLog>, shutdown: &Shutdown) -> Self {
        let audit_lookup = Self(Arc::new(Inner {
            changes,
            open: Mutex::default(),
            asked: Notify::new(),
            decided: Notify::new(),
            shutdown: shutdown.clone(),
        }));
        shutdown.spawn(audit_lookup.clone().run());
        audit_lookup
    }

    /// Asks whether this position is the event's first occurrence. The lookup continues as long as the returned value
    /// is held.
    pub(super) fn ask(&self, event: &OrderChangeEvent, position: Position) -> Arc<Lookup> {
        let lookup = Arc::new(Lookup {
            order_id: event.id.clone(),
            revision: event.revision,
            position,
            answer: OnceLock::new(),
        });
        let open = Open {
            lookup: Arc::downgrade(&lookup),
            next: self.0.shutdown.clock().instant(),
            pause: FIRST_LOOK,
        };
        self.open().push_back(open);
        self.0.asked.notify_one();
        lookup
    }

    /// Waits for new answers. Waiting tasks are woken in the order in which they came.
    pub(super) async fn decided(&self) {
        self.0.decided.notified().await;
    }

    /// Waits until all of these lookups have an answer, at most for this time.
    pub(super) async fn all_within(&self, lookups: &[Arc<Lookup>], time: Duration) {
        let are_decided = || lookups.iter().all(|lookup| lookup.answer().is_some());
        let all = notified::until(&self.0.decided, are_decided);
        // Each lookup says itself whether it has an answer, so the timeout needs no handling.
        let _ = self.0.shutdown.clock().timeout(time, all).await;
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Open>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        let (shutdown, clock) = (&self.0.shutdown, self.0.shutdown.clock());
        loop {
            let (due, next) = self.due();
            if due.is_empty() {
                let until_next = async {
                    match next {
                        Some(next) => clock.sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = shutdown.requested() => return,
                    () = self.0.asked.notified() => {}
                    () = until_next => {}
                }
                continue;
            }
            let lookups: Vec<Arc<Lookup>> = due
                .iter()
                .filter_map(|open| open.lookup.upgrade())
                .collect();
            let looked = tokio::select! {
                biased;
                () = shutdown.requested() => return,
                looked = self.look(&lookups) => looked,
            };
            if let Err(error) = looked {
                tracing::warn!(%error, "live updates wait for the audit trail");
            }
            self.look_again(due);
        }
    }

    /// Takes out lookups that are due, up to the maximum of one request. Also returns the time of the next one.
    fn due(&self) -> (Vec<Open>, Option<Instant>) {
        let now = self.0.shutdown.clock().instant();
        let mut open = self.open();
        let (mut due, mut kept) = (Vec::new(), VecDeque::with_capacity(open.len()));
        for one in open.drain(..) {
            if one.lookup.strong_count() == 0 {
                continue;
            }
            if one.next <= now && due.len() < TOGETHER {
                due.push(one);
            } else {
                kept.push_back(one);
            }
        }
        *open = kept;
        let next = open.iter().map(|one| one.next).min();
        (due, next)
    }

    /// Puts lookups without an answer back.
    fn look_again(&self, due: Vec<Open>) {
        let now = self.0.shutdown.clock().instant();
        let undecided = due.into_iter().filter(|one| {
            let lookup = one.lookup.upgrade();
            lookup.is_some_and(|lookup| lookup.answer().is_none())
        });
        self.open().extend(undecided.map(|one| Open {
            next: now + one.pause,
            pause: (one.pause * 2).min(LONGEST_LOOK),
            ..one
        }));
    }

    async fn look(&self, lookups: &[Arc<Lookup>]) -> Result<(), StoreError> {
        let requests: Vec<ChangesRequest> = lookups
            .iter()
            .map(|lookup| ChangesRequest {
                subject: lookup.order_id.clone(),
                // The request includes the previous revision.
                after_revision: lookup.revision.saturating_sub(2),
                limit: 2,
            })
            .collect();
        let found = self.0.changes.changes(&requests).await?;
        let mut is_any = false;
        for (lookup, records) in lookups.iter().zip(found) {
            let of_revision = |revision: i64| {
                let record = records.iter().find(|record| record.revision == revision)?;
                Some(Position {
                    partition: record.partition,
                    offset: record.offset,
                })
            };
            if let Some(first) = of_revision(lookup.revision) {
                let answer = Answer {
                    is_first: first == lookup.position,
                    predecessor: of_revision(lookup.revision.saturating_sub(1)),
                };
                is_any |= lookup.answer.set(answer).is_ok();
            }
        }
        if is_any {
            self.0.decided.notify_waiters();
        }
        Ok(())
    }
}
