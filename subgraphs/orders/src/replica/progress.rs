//! The progress of the replica in the log, over all instances. It shows which changes have passed in the log and may
//! not be in the replica yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tandem_event_path::{
    log::Offsets,
    log_memory::remembered,
    store::{DeadLetterFilter, DeadLetterStore, Registry, StoreError, dead_letters::LetterId},
    waiting,
};
use tandem_runtime::clock::{Clock, Instant};
use tokio::sync::Mutex;

use super::{event, projection};

/// How long the last answer is reused. The replica only moves forward, so an old answer never claims too much.
const STANDS: Duration = Duration::from_secs(1);

/// The progress of the replica: for each partition, all changes below a position are in the replica or are parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// For each partition, the offset after the last applied change, as of a moment ago. A partition that is missing
    /// here has no applied changes.
    pub positions: Offsets,
    /// Whether any change is parked: as a dead letter, or until its data key arrives.
    pub is_any_set_aside: bool,
}

/// Reads the progress of the replica. Clones share the last answer.
#[derive(Clone)]
pub struct Progress {
    registry: Arc<dyn Registry>,
    letters: Arc<dyn DeadLetterStore>,
    clock: Clock,
    last: Arc<Mutex<Option<(Instant, Taken)>>>,
}

impl Progress {
    /// The progress of the replica whose applied positions are in this registry and whose parked changes are in these
    /// dead letters.
    #[must_use]
    pub fn new(
        registry: Arc<dyn Registry>,
        letters: Arc<dyn DeadLetterStore>,
        clock: &Clock,
    ) -> Self {
        Self {
            registry,
            letters,
            clock: clock.clone(),
            last: Arc::default(),
        }
    }

    /// The progress of the replica. A later read of the replica shows at least this much.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn taken(&self) -> Result<Taken, StoreError> {
        // Concurrent callers wait for one answer.
        let mut last = self.last.lock().await;
        if let Some((asked, taken)) = &*last
            && self.clock.since(*asked) < STANDS
        {
            return Ok(taken.clone());
        }
        let asked = self.clock.instant();
        let positions = remembered(self.registry.as_ref(), event::TOPIC).await?;
        let positions = positions
            .into_iter()
            .map(|(partition, known)| (partition, known.last.offset + 1))
            .collect();
        // Read after the positions, so that every change that is parked below them is found.
        let mut is_any_set_aside = false;
        for consumer in consumers() {
            let filter = DeadLetterFilter {
                consumer: Some(consumer),
                key: None,
            };
            is_any_set_aside |= self.letters.count(&filter).await? > 0;
        }
        let taken = Taken {
            positions,
            is_any_set_aside,
        };
        *last = Some((asked, taken.clone()));
        Ok(taken)
    }

    /// For each partition, the position of this customer's first parked change, if there is one.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn set_aside(&self, customer_id: &str) -> Result<Offsets, StoreError> {
        let mut first = BTreeMap::new();
        for consumer in consumers() {
            let filter = DeadLetterFilter {
                consumer: Some(consumer),
                key: Some(customer_id.to_owned()),
            };
            let mut behind: Option<LetterId> = None;
            loop {
                let found = self.letters.dead_letters(&filter, behind.as_ref(), 1);
                let Some(letter) = found.await?.into_iter().next() else {
                    break;
                };
                let known = first.entry(letter.partition).or_insert(letter.offset);
                *known = letter.offset.min(*known);
                // Continue with the next partition.
                behind = Some(LetterId {
                    offset: i64::MAX,
                    ..letter.id()
                });
            }
        }
        Ok(first)
    }
}

/// The consumer names under which changes of customers are parked.
fn consumers() -> [String; 2] {
    [
        projection::NAME.to_owned(),
        waiting::kept_under(projection::NAME),
    ]
}
