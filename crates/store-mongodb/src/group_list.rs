//! Group reads of the beginnings of lists: for many values of a field, one `find` reads the first aggregates of each
//! value.
//!
//! The index is ordered by value, and within a value by id, so one scan reads one list after the other. It stops after
//! [`USUAL`] aggregates for each list. A list is complete if the scan went past its end. Readers of a list that is not
//! complete send a separate command. If lists are long, this happens again and again, and the scan was useless. So
//! after a scan that was too short, lists are read separately for a while, for twice as many reads each time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use mongodb::{
    Collection,
    bson::{RawDocument, RawDocumentBuf, doc},
    options::Hint,
};
use tandem_event_path::store::StoreError;
use tandem_runtime::trace_context::TraceContext;

use super::{
    connection::{SERVER_LIMIT, limited, read_page},
    documents::index_name,
    group_queue::{Admission, GroupQueue, SharedRead},
};

/// The usual length of a list. A scan for several lists reads this many for each of them on average.
const USUAL: usize = 32;
/// The longest pause: for how many reads lists are read separately after many scans in a row that were too short.
const LONGEST_PAUSE: u32 = 1_024;

/// The beginning of a list, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    /// The documents in the order of their ids, as the server sent them.
    pub(super) documents: Vec<RawDocumentBuf>,
    /// Whether these are all documents of the list.
    pub(super) is_whole: bool,
}

/// The lists by their value.
pub(super) type Beginnings = Arc<HashMap<String, Beginning>>;

/// The lists by one field. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct GroupList {
    /// The field within the state.
    pub(super) field: &'static str,
    queue: GroupQueue<ByField>,
}

/// The command that reads the lists for some values.
#[derive(Clone, Debug)]
pub(super) struct ByField {
    collection: Collection<RawDocumentBuf>,
    field: &'static str,
    pause: Arc<Pause>,
}

/// For how many reads lists are not grouped.
#[derive(Debug, Default)]
struct Pause {
    left: AtomicU32,
    next: AtomicU32,
}

impl Pause {
    /// Whether this read must be separate. Counts it.
    fn holds(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Relaxed, Relaxed, one_less).is_ok()
    }

    fn after(&self, fell_short: bool) {
        if fell_short {
            let next = self.next.load(Relaxed).clamp(1, LONGEST_PAUSE / 2) * 2;
            self.next.store(next, Relaxed);
            self.left.store(next, Relaxed);
        } else {
            self.next.store(0, Relaxed);
        }
    }
}

impl GroupList {
    pub(super) fn new(collection: Collection<RawDocumentBuf>, field: &'static str) -> Self {
        let pause = Arc::default();
        Self {
            field,
            queue: GroupQueue::new(ByField {
                collection,
                field,
                pause,
            }),
        }
    }

    /// Whether a list is read by a separate command or together with others.
    pub(super) fn admit(&self, value: &str, trace: Option<TraceContext>) -> Admission<'_, ByField> {
        if self.queue.command().pause.holds() {
            return Admission::Apart;
        }
        self.queue.admit(&[value.to_owned()], trace)
    }

    /// The beginnings of these lists; `None` while lists are read separately.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(super) async fn beginnings(
        &self,
        values: &[String],
    ) -> Result<Option<Beginnings>, StoreError> {
        if self.queue.command().pause.holds() {
            return Ok(None);
        }
        self.queue.found(values).await.map(Some)
    }
}

impl SharedRead for ByField {
    type Found = Beginnings;

    fn collection(&self) -> &str {
        self.collection.name()
    }

    async fn read(&self, values: &[String]) -> Result<Beginnings, StoreError> {
        let field = format!("state.{}", self.field);
        let limit = values.len().saturating_mul(USUAL);
        let reading = async {
            let mut cursor = self
                .collection
                .find(doc! { &field: { "$in": values } })
                .projection(doc! { "_id": 0, "state": 1 })
                .sort(doc! { &field: 1, "_id": 1 })
                .hint(Hint::Name(index_name(&[self.field])))
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .batch_size(u32::try_from(limit + 1).unwrap_or(u32::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            read_page(&mut cursor, limit, |document| {
                Ok((value_of(document, self.field)?, document.to_owned()))
            })
            .await
        };
        let (found, fell_short) = limited(reading).await??;
        self.pause.after(fell_short);
        Ok(Arc::new(sorted_out(values, found, fell_short)))
    }
}

fn value_of(document: &RawDocument, field: &str) -> Result<String, StoreError> {
    document
        .get_document("state")
        .and_then(|state| state.get_str(field))
        .map(str::to_owned)
        .map_err(|error| StoreError::Corrupt(format!("a document of a list by {field}: {error}")))
}

/// Splits the scan into lists. If the scan was too short, the last list that it reached, and those after it, are
/// incomplete.
fn sorted_out(
    values: &[String],
    found: Vec<(String, RawDocumentBuf)>,
    fell_short: bool,
) -> HashMap<String, Beginning> {
    let last = found.last().map(|(value, _)| value.clone());
    let mut lists: HashMap<String, Beginning> = values
        .iter()
        .map(|value| {
            let is_behind = last.as_ref().is_some_and(|last| value < last);
            let beginning = Beginning {
                documents: Vec::new(),
                is_whole: !fell_short || is_behind,
            };
            (value.clone(), beginning)
        })
        .collect();
    for (value, document) in found {
        if let Some(list) = lists.get_mut(&value) {
            list.documents.push(document);
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    fn found(values: &[&str]) -> Vec<(String, RawDocumentBuf)> {
        let one = |value: &&str| ((*value).to_owned(), RawDocumentBuf::new());
        values.iter().map(one).collect()
    }

    #[test]
    fn of_a_scan_that_ended_early_the_last_list_and_those_behind_it_are_not_whole() {
        let lists = sorted_out(&names(&["a", "b", "c", "d"]), found(&["a", "a", "c"]), true);
        let whole = |value: &str| lists.get(value).unwrap().is_whole;
        assert_eq!([whole("a"), whole("b")], [true, true]);
        assert_eq!([whole("c"), whole("d")], [false, false]);
        assert_eq!(lists.get("a").unwrap().documents.len(), 2);
    }

    #[test]
    fn all_lists_of_a_scan_that_went_to_its_end_are_whole_also_the_empty_ones() {
        let lists = sorted_out(&names(&["a", "b"]), found(&["a"]), false);
        assert!(lists.values().all(|list| list.is_whole));
        assert!(
            sorted_out(&names(&["a"]), Vec::new(), false)
                .get("a")
                .unwrap()
                .is_whole
        );
    }

    #[test]
    fn reads_stay_apart_for_longer_after_each_scan_that_fell_short() {
        let pause = Pause::default();
        let held = |pause: &Pause| (0..).take_while(|_| pause.holds()).count();
        assert_eq!(held(&pause), 0);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pause.after(true);
            pauses.push(held(&pause));
        }
        assert_eq!(pauses.get(..3).unwrap(), [2, 4, 8]);
        assert_eq!(*pauses.last().unwrap(), LONGEST_PAUSE as usize);
        pause.after(false);
        pause.after(true);
        assert_eq!(held(&pause), 2);
    }
}
