//! How far the replica has come in the log, over all instances: what tells a subscriber which changes passed in the log and may not be
//! in the replica yet.

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

/// How long an answer stands for those who ask behind it. The replica only goes on, so an old one is never too far.
const STANDS: Duration = Duration::from_secs(1);

/// What the replica has of the log: of each partition all changes before a position are in it, or set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Behind what was taken of each partition, a moment ago; nothing of a partition that is not named.
    pub positions: Offsets,
    /// Whether any change is set aside: as a dead letter, or until its data key comes.
    pub is_any_set_aside: bool,
}

/// Tells how far the replica is. Clones share what was asked last.
#[derive(Clone)]
pub struct Progress {
    registry: Arc<dyn Registry>,
    letters: Arc<dyn DeadLetterStore>,
    clock: Clock,
    last: Arc<Mutex<Option<(Instant, Taken)>>>,
}

impl Progress {
    /// Of the replica whose store remembers in this registry what it applied, and keeps there what is set aside.
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

    /// What the replica has. What is read of it afterwards shows all that.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn taken(&self) -> Result<Taken, StoreError> {
        // Callers that ask meanwhile wait for the one answer.
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
        // Asked behind the positions: whatever was set aside below them is seen.
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

    /// In each partition the first change of a customer that is set aside; none where there is none.
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
                // On to the next partition.
                behind = Some(LetterId {
                    offset: i64::MAX,
                    ..letter.id()
                });
            }
        }
        Ok(first)
    }
}

/// Under what names changes of customers are set aside.
fn consumers() -> [String; 2] {
    [
        projection::NAME.to_owned(),
        waiting::kept_under(projection::NAME),
    ]
}
