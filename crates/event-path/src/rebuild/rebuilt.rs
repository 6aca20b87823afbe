//! What a rebuild has to know about each kind of data: how to decode, decrypt and write its messages, and what is
//! stored. Everything else is the same for all kinds.

use std::collections::HashMap;

use async_trait::async_trait;
use serde::Serialize;

use super::Keeps;
use crate::{
    data_keys::Unopened,
    store::{PublishedRow, StoreError},
    waiting::Waiting,
};
use tandem_model::message::Message;

/// A message that was decoded as far as that is possible without a key.
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    /// The id of the aggregate.
    pub id: String,
    /// The revision that the change made.
    pub revision: i64,
    /// The content. Its sealed parts are still sealed.
    pub event: T,
}

/// Something that is rebuilt from a topic: rows, each with an id and a revision.
#[async_trait]
pub trait Rebuilt: Send + Sync + 'static {
    /// The decoded content of a message.
    type Event: Send + Sync + 'static;
    /// The keys that are needed to open sealed parts of messages.
    type Keys: Send + Sync + 'static;
    /// What is written to the store.
    type Row: Send + Sync + 'static;

    /// The name that progress reports show.
    fn name(&self) -> &'static str;

    /// The topic that it is rebuilt from.
    fn topic(&self) -> &'static str;

    /// Which revisions of an id the store keeps.
    fn keeps(&self) -> Keeps;

    /// Decodes a message. `None` if it cannot be decoded. A pure function without I/O.
    fn decode(&self, message: &Message) -> Option<Decoded<Self::Event>>;

    /// The keys for these events.
    ///
    /// # Errors
    /// When the keys cannot be read now. The call is repeated.
    async fn keys(&self, events: &[&Self::Event]) -> Result<Self::Keys, StoreError>;

    /// The opened row. A pure function without I/O.
    ///
    /// # Errors
    /// Why the event cannot be opened.
    fn open(&self, event: Self::Event, keys: &Self::Keys) -> Result<Self::Row, Unopened>;

    /// Where events wait that cannot be opened yet. `None` if no event is ever sealed.
    fn waiting(&self) -> Option<&Waiting> {
        None
    }

    /// The stored revisions of these ids. Ids that are not stored are left out.
    ///
    /// # Errors
    /// When the store is unavailable. The call is repeated.
    async fn revisions(&self, ids: &[String]) -> Result<HashMap<String, i64>, StoreError>;

    /// Writes rows, each id and revision at most once, in order of id. Returns which rows had other content, if that is
    /// known.
    ///
    /// # Errors
    /// When the store is unavailable. The call is repeated with the same rows.
    async fn write(&self, rows: &[Self::Row], entries: Entries) -> Result<Differing, StoreError>;

    /// The stored content of these rows, in the form for [`Self::row_of`]. `None` for a row that is no longer stored.
    ///
    /// # Errors
    /// When the store is unavailable. The call is repeated.
    async fn contents(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Makes a row from what [`Self::contents`] returned.
    ///
    /// # Errors
    /// When the bytes are not such content.
    fn row_of(&self, content: &[u8]) -> Result<(String, i64, Self::Row), serde_json::Error>;

    /// At most `limit` stored rows behind `after` with nothing pending, in order. Empty when there are no more.
    ///
    /// # Errors
    /// When the store is unavailable. The call is repeated.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes rows, each only if it is unchanged since it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is unavailable. The call is repeated.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Replaces newer rows with these, each only if the newer one is unchanged since it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is unavailable. The call is repeated.
    async fn revert(&self, rows: &[(PublishedRow, Self::Row)]) -> Result<u64, StoreError>;
}

/// What to do about audit trail entries whose stored content differs from the log's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entries {
    /// They are left alone and reported.
    #[default]
    Left,
    /// They are replaced with the log's content.
    Replaced,
}

/// What was stored with other content than the log's.
#[derive(Clone, Debug, Default)]
pub struct Differing {
    /// How many were replaced with the log's content.
    pub replaced: u64,
    /// The contents that were left alone, in the form for [`Rebuilt::row_of`]. Empty if a content cannot be read.
    pub left: Vec<Vec<u8>>,
    /// How many are kept because the log has only an event that was restored from a newer state.
    pub only_stored: u64,
}

/// Stored data as bytes from which it can be restored. `None` if it has no JSON form, which has not occurred for any
/// state.
#[must_use]
pub fn content_of<T: Serialize>(stored: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(stored).ok()
}
