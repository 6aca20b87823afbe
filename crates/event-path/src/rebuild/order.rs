//! The options of a rebuild, and its outcome.

use super::{Entries, Progress};
use crate::store::PublishedRow;

/// The options of a rebuild.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// Whether to look for rows that are stored and missing in the log. A new store has none.
    pub looks: bool,
    /// What to do about audit trail entries that differ from the log.
    pub entries: Entries,
    /// Whether the log is not the one that the store was made from. Then a stored row of the same revision is kept too.
    pub distrusts: bool,
    /// Whether the log's gaps will be filled from the store. Then everything that the log does not show counts as
    /// missing, even if a message of the same id cannot be read, which may be a forged one. Writing an event a second
    /// time changes nothing. Otherwise such rows could be removed from the store, so they do not count.
    pub restores: bool,
}

/// Something that is stored and missing in the log.
#[derive(Clone, Debug)]
pub enum Lacking {
    /// A row whose id the log does not know, or an entry that the log does not show.
    Unknown(PublishedRow),
    /// A row whose revision is ahead of the log.
    Ahead(PublishedRow),
    /// An entry whose content differs from the log's, in the form for [`super::Target::take_back`]. Empty if it cannot
    /// be read.
    Differing(Vec<u8>),
}

/// What a rebuild did, and which stored rows are missing in the log.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the rebuild did.
    pub progress: Progress,
    /// The rows that it left alone.
    pub lacking: Vec<Lacking>,
}
