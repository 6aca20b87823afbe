//! What a rebuild has to know of each kind of data: how its messages are decoded, decrypted and written, and what is stored of it. Everything else is
//! the same for all kinds.

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

/// A message that was decoded, as far as that can be done without a key.
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    /// The aggregate that it is about.
    pub id: String,
    /// The revision that it made.
    pub revision: i64,
    /// What it says, with what is sealed in it still sealed.
    pub event: T,
}

/// Something that is rebuilt from a topic: rows, each with an id and a revision.
#[async_trait]
pub trait Rebuilt: Send + Sync + 'static {
    /// What a message says.
    type Event: Send + Sync + 'static;
    /// What it takes to open what is sealed in messages.
    type Keys: Send + Sync + 'static;
    /// What is written.
    type Row: Send + Sync + 'static;

    /// What it is called, as progress shows it.
    fn name(&self) -> &'static str;

    /// The topic it is rebuilt from.
    fn topic(&self) -> &'static str;

    /// Which revisions of an id it keeps.
    fn keeps(&self) -> Keeps;

    /// Decodes a message, `None` if it cannot be. Pure: it asks nobody.
    fn decode(&self, message: &Message) -> Option<Decoded<Self::Event>>;

    /// What it takes to open these.
    ///
    /// # Errors
    /// When that cannot be told now: it is asked again.
    async fn keys(&self, events: &[&Self::Event]) -> Result<Self::Keys, StoreError>;

    /// The row. Pure: it asks nobody.
    ///
    /// # Errors
    /// Why it does not open.
    fn open(&self, event: Self::Event, keys: &Self::Keys) -> Result<Self::Row, Unopened>;

    /// Where events wait that do not open, if any of them may be sealed.
    fn waiting(&self) -> Option<&Waiting> {
        None
    }

    /// The stored revisions of those of these ids that are stored.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn revisions(&self, ids: &[String]) -> Result<HashMap<String, i64>, StoreError>;

    /// Writes rows, each id and revision at most once, in order of id. Answers what was there with other content, if that is known.
    ///
    /// # Errors
    /// When the store is away: the same rows are given again.
    async fn write(&self, rows: &[Self::Row], entries: Entries) -> Result<Differing, StoreError>;

    /// What is stored of these, as it would be taken back; `None` for what is no longer stored.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn contents(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// A row of what [`Self::contents`] answered.
    ///
    /// # Errors
    /// When it is no such content.
    fn row_of(&self, content: &[u8]) -> Result<(String, i64, Self::Row), serde_json::Error>;

    /// At most `limit` stored rows behind `after` of which nothing is pending, in order; none when there are no more.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes rows, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Puts rows in the place of newer ones, each only if that is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn revert(&self, rows: &[(PublishedRow, Self::Row)]) -> Result<u64, StoreError>;
}

/// What is done about entries of an audit trail that are stored with other content than the log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entries {
    /// They are left as they are, and told.
    #[default]
    Left,
    /// They are made as the log has them.
    Replaced,
}

/// What was stored with other content than the log has.
#[derive(Clone, Debug, Default)]
pub struct Differing {
    /// How many were made as the log has them.
    pub replaced: u64,
    /// What is left as it is: the contents as they would be taken back, empty if they cannot be read.
    pub left: Vec<Vec<u8>>,
    /// How many stay because the log has no more than what was made anew from a newer state.
    pub only_stored: u64,
}

/// What is stored, as bytes from which it is taken back; `None` if it has no JSON form, which no state has brought about.
#[must_use]
pub fn content_of<T: Serialize>(stored: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(stored).ok()
}
