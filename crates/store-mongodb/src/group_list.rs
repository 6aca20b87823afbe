//! Group reads of the beginnings of lists: the first aggregates with one value of a field each, of many values with one `find`.
//!
//! The index has the values in order, and the aggregates of a value in order of id, so that one scan gives one list after the other. It
//! ends at [`USUAL`] aggregates for each list: a list is whole if the scan came behind it. What a reader wants of a list that is not whole
//! it reads with a command of its own. Where lists are long this happens again and again, and the scan was for nothing; so after a scan
//! that fell short, lists are read apart for a while, for twice as many reads each time.

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

/// Aggregates of a usual list. A scan for some lists reads as many for each of them on average.
const USUAL: usize = 32;
/// Reads that stay apart after the last of many scans that fell short.
const LONGEST_PAUSE: u32 = 1_024;

/// The beginning of a list, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    /// In order of id, as the server sent them.
    pub(super) documents: Vec<RawDocumentBuf>,
    /// Whether there are no others.
    pub(super) is_whole: bool,
}

/// Lists by their value.
pub(super) type Beginnings = Arc<HashMap<String, Beginning>>;

/// The lists by one field. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct GroupList {
    /// The field, in the state.
    pub(super) field: &'static str,
    queue: GroupQueue<ByField>,
}

/// The command for lists with some values.
#[derive(Clone, Debug)]
pub(super) struct ByField {
    collection: Collection<RawDocumentBuf>,
    field: &'static str,
    pause: Arc<Pause>,
}

/// For how many reads nothing is grouped.
#[derive(Debug, Default)]
struct Pause {
    left: AtomicU32,
    next: AtomicU32,
}

impl Pause {
    /// Whether this read is one of those that stay apart.
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

    /// Whether a list is read by a command of its own or with those of others.
    pub(super) fn admit(&self, value: &str, trace: Option<TraceContext>) -> Admission<'_, ByField> {
        if self.queue.command().pause.holds() {
            return Admission::Apart;
        }
        self.queue.admit(&[value.to_owned()], trace)
    }

    /// The beginnings of these lists; `None` while lists are read apart.
    ///
    /// # Errors
    /// When the server does not answer.
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

/// The lists of these values: whole are those before the last one that something was found of, and all if the scan went to its end.
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
