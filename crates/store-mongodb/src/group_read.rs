//! Group reads of documents by their `_id`.
//!
//! Each document is handed out as the server sent it, so a document that cannot be read fails only the readers that
//! requested it.

use std::{collections::HashMap, sync::Arc};

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Document, RawDocument, RawDocumentBuf},
};

use super::{
    connection::{SERVER_LIMIT, limited},
    documents::with_ids,
    group_queue::{GroupQueue, SharedRead},
};
use tandem_event_path::store::StoreError;

/// Reads documents of one collection by their `_id`. Clones share the queue.
#[derive(Clone, Debug)]
pub struct GroupRead(GroupQueue<ById>);

/// The command that reads the documents with some ids.
#[derive(Clone, Debug)]
struct ById {
    collection: Collection<RawDocumentBuf>,
    /// The projection; empty for all fields.
    projection: Document,
}

impl GroupRead {
    /// Reads these fields (all if the projection is empty), with the options of the collection.
    #[must_use]
    pub fn new(collection: Collection<RawDocumentBuf>, projection: Document) -> Self {
        Self(GroupQueue::new(ById {
            collection,
            projection,
        }))
    }

    /// The documents with these ids in the same order, each converted by `read`; `None` if there is no document.
    ///
    /// # Errors
    /// If the server does not answer. Also the errors of `read`.
    pub async fn get_many<T>(
        &self,
        ids: &[String],
        read: impl Fn(&RawDocument) -> Result<T, StoreError>,
    ) -> Result<Vec<Option<T>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.0.found(ids).await?;
        let documents = ids.iter().map(|id| found.get(id));
        documents
            .map(|document| document.map(|document| read(document)).transpose())
            .collect()
    }
}

impl SharedRead for ById {
    /// Documents by their `_id`, as the server sent them.
    type Found = Arc<HashMap<String, RawDocumentBuf>>;

    fn collection(&self) -> &str {
        self.collection.name()
    }

    async fn read(&self, ids: &[String]) -> Result<Self::Found, StoreError> {
        let reading = async {
            let mut find = self
                .collection
                .find(with_ids(ids))
                .batch_size(u32::try_from(ids.len() + 1).unwrap_or(u32::MAX))
                .max_time(SERVER_LIMIT);
            if !self.projection.is_empty() {
                find = find.projection(self.projection.clone());
            }
            let documents: Vec<RawDocumentBuf> = find.await?.try_collect().await?;
            Ok(documents)
        };
        let found = limited(reading).await?;
        let by_id = found.into_iter().filter_map(|document| {
            let id = document.get_str("_id").ok()?.to_owned();
            Some((id, document))
        });
        Ok(Arc::new(by_id.collect()))
    }
}
