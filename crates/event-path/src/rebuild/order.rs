//! The options of a rebuild, and its outcome.

use super::{Entries, Progress};
use crate::store::PublishedRow;

/// How a rebuild is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// Whether what is stored and not in the log is looked for. A new store has nothing of the kind.
    pub looks: bool,
    /// What is done about entries that differ.
    pub entries: Entries,
    /// The log is not the one that the store was made from: what is stored at the same revision stays too.
    pub distrusts: bool,
    /// What the log lacks is to be written to it. So whatever it does not show counts as lacking, also where a message of the same id cannot
    /// be read, be it forged: to write once more what was there changes nothing. Where it may be removed from the store it does not count.
    pub restores: bool,
}

/// Something stored that the log has not.
#[derive(Clone, Debug)]
pub enum Lacking {
    /// Under an id that the log does not know, or an entry that it does not show.
    Unknown(PublishedRow),
    /// At a revision that is ahead of the log.
    Ahead(PublishedRow),
    /// An entry with other content than the log's, as it would be taken back; empty if it cannot be read.
    Differing(Vec<u8>),
}

/// What a rebuild did, and what it found stored that the log has not.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What it did.
    pub progress: Progress,
    /// What it left.
    pub lacking: Vec<Lacking>,
}
