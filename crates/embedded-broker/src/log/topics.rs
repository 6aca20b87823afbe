//! The current topics, shared by all connections. Only the writer changes them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::settings::TopicSettings;

/// A partition: its ends, and the readers that wait for more.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Unique in the file, also among deleted topics.
    pub(crate) number: u32,
    start: AtomicI64,
    end: AtomicI64,
    newest: AtomicI64,
    written: AtomicU64,
    waiting: Mutex<Vec<Arc<Notify>>>,
}

/// Where the log of a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The first offset.
    pub(crate) start: i64,
    /// The offset of the next record.
    pub(crate) end: i64,
    /// The newest timestamp so far, in milliseconds since 1970.
    pub(crate) newest: i64,
    /// Bytes appended since the file was opened.
    pub(crate) written: u64,
}

impl Partition {
    pub(super) fn new(number: u32, ends: Ends) -> Self {
        Self {
            number,
            start: AtomicI64::new(ends.start),
            end: AtomicI64::new(ends.end),
            newest: AtomicI64::new(ends.newest),
            written: AtomicU64::new(ends.written),
            waiting: Mutex::default(),
        }
    }

    /// Where its log begins and ends.
    pub(crate) fn ends(&self) -> Ends {
        // Reads the value first that is published last. So a reader that finds nothing up to the end cannot conclude
        // that it has seen all written bytes.
        let written = self.written.load(Ordering::Acquire);
        Ends {
            start: self.start.load(Ordering::Acquire),
            end: self.end.load(Ordering::Acquire),
            newest: self.newest.load(Ordering::Acquire),
            written,
        }
    }

    /// Publishes new ends, and notifies waiting readers.
    pub(super) fn publish(&self, ends: Ends) {
        self.newest.store(ends.newest, Ordering::Release);
        self.start.store(ends.start, Ordering::Release);
        self.end.store(ends.end, Ordering::Release);
        self.written.store(ends.written, Ordering::Release);
        self.wake();
    }

    /// Tells waiting readers to look again.
    pub(super) fn wake(&self) {
        for waiting in self.waiting().iter() {
            waiting.notify_one();
        }
    }

    /// Notifies `waiting` at each change, until the returned guard is dropped.
    pub(crate) fn notify(self: &Arc<Self>, waiting: &Arc<Notify>) -> Notified {
        self.waiting().push(Arc::clone(waiting));
        Notified {
            partition: Arc::clone(self),
            waiting: Arc::clone(waiting),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that is notified of a partition's changes.
#[derive(Debug)]
pub(crate) struct Notified {
    partition: Arc<Partition>,
    waiting: Arc<Notify>,
}

impl Drop for Notified {
    fn drop(&mut self) {
        let mut waiting = self.partition.waiting();
        let at = waiting
            .iter()
            .position(|one| Arc::ptr_eq(one, &self.waiting));
        if let Some(at) = at {
            waiting.swap_remove(at);
        }
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) settings: TopicSettings,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// The partition with this index.
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// All topics, by name and by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Topics {
    /// The topic with this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic with this id.
    pub(crate) fn with_id(&self, id: &Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(id)
    }

    /// All topics, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// The number of partitions of all topics.
    pub(crate) fn partitions(&self) -> usize {
        self.all().map(|topic| topic.partitions.len()).sum()
    }

    pub(super) fn put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(topic) = self.by_name.remove(name) {
            self.by_id.remove(&topic.id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_is_never_seen_before_the_end_that_it_made() {
        const PUBLISHED: i64 = 1_000_000;
        let partition = Arc::new(Partition::new(0, Ends::EMPTY));
        let publisher = Arc::clone(&partition);
        let publishing = std::thread::spawn(move || {
            for end in 1..=PUBLISHED {
                publisher.publish(Ends {
                    end,
                    written: end.unsigned_abs(),
                    ..Ends::EMPTY
                });
            }
        });
        while !publishing.is_finished() {
            let ends = partition.ends();
            assert!(ends.written <= ends.end.unsigned_abs(), "{ends:?}");
        }
        publishing.join().unwrap();
    }
}
