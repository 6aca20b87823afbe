//! The options of a rebuild, and the lines of its answer.

use serde::{Deserialize, Serialize};
use tandem_event_path::rebuild::Progress;
use utoipa::ToSchema;

/// What is asked of a rebuild. It never removes anything: that is an order of its own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Wanted {
    /// Whether what is stored and not in the log is answered too, whole and sealed, so that it can be kept.
    pub copies: bool,
    /// Whether entries of audit trails that differ are made as the log has them.
    pub replace_entries: bool,
    /// Whether it goes on when whoever asked for it goes away. The answer is then how far it is, and not a line for each step.
    pub background: bool,
}

/// One line of what a rebuild answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// Something that is stored and not in the log.
    Lacking(Copy),
    /// What was ordered is done.
    Done(Done),
    /// It ended early, and why.
    Failed(String),
    /// Everything is rebuilt.
    Finished,
}

/// Why something is not as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Lack {
    /// The log does not know it.
    Unknown,
    /// It is ahead of the log.
    Ahead,
    /// The log has another content.
    Differing,
}

/// Something stored, with which it can be taken back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    /// What it is part of.
    pub target: String,
    /// Why it is not as the log has it.
    pub lack: Lack,
    /// Its id; empty for an entry that differs.
    pub id: String,
    /// Its revision.
    pub revision: i64,
    /// Tells this writing of it from every other, as base64.
    pub version: String,
    /// Its content, sealed with the sealing key; `None` if it is no longer stored.
    pub sealed: Option<String>,
}

/// What is to be removed or set back (exactly what was seen, and nothing that was written since; contents are not needed), or what
/// is to be taken back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Copies {
    /// As a rebuild answered them.
    pub copies: Vec<Copy>,
}

/// What removing or taking back did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Removed.
    pub removed: u64,
    /// Set back to what the log tells last.
    pub revert: u64,
    /// Taken back.
    pub taken_back: u64,
    /// Written to the log.
    #[serde(default)]
    pub restored: u64,
}
