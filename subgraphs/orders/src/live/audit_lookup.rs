//! What the audit trail says of an event that memory does not know: whether its position is the first occurrence. The trail notes where
//! it first saw each event, so its answer is final, and nothing else is taken for one: while the trail is behind, an answer is waited for
//! however long that takes, by the order alone that it is about.

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

/// First and longest pause between two looks at the audit trail for the same event. They have no jitter: events that are asked for together
/// are looked for together, in one request.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Events that are looked for at once.
const TOGETHER: usize = 500;

/// What the audit trail says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether it is its first occurrence.
    pub(super) is_first: bool,
    /// Where the change before it was first seen, if the trail has it.
    pub(super) predecessor: Option<Position>,
}

/// An event whose answer is waited for.
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

/// A lookup, and when to make it next.
struct Open {
    lookup: Weak<Lookup>,
    next: Instant,
    pause: Duration,
}

/// Asks the audit trail of what memory does not know. Clones share it.
#[derive(Clone)]
pub(super) struct AuditLookup(Arc<Inner>);

struct Inner {
    changes: Arc<dyn ChangeLog>,
    /// Bounded by those who wait: a lookup that nobody holds any more is dropped.
    open: Mutex<VecDeque<Open>>,
    asked: Notify,
    /// Told whenever there are answers.
    decided: Notify,
    shutdown: Shutdown,
}

impl AuditLookup {
    /// Starts to look at this audit trail whenever somebody waits for an answer.
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

    /// Asks whether this position is the event's first occurrence. It is looked for as long as the lookup is held.
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

    /// Answers when there are more answers. Those who wait are woken in the order in which they came.
    pub(super) async fn decided(&self) {
        self.0.decided.notified().await;
    }

    /// Waits until all of these are decided, or for so long.
    pub(super) async fn all_within(&self, lookups: &[Arc<Lookup>], time: Duration) {
        let are_decided = || lookups.iter().all(|lookup| lookup.answer().is_some());
        let all = notified::until(&self.0.decided, are_decided);
        // Decided or not, each lookup says so.
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

    /// Takes out some of those that are to be looked for now, and tells when to look for the next one.
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

    /// Puts back what is not decided yet.
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
                // With the one before it.
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
