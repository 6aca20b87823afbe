//! Reads the replies to `insert` and `update` commands, statement by statement.

use mongodb::bson::{Document, Timestamp, oid::ObjectId};
use serde::Deserialize;

use super::{documents::unwritable, error::is_passing_code};
use tandem_event_path::store::{StoreError, WriteEpoch};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    #[serde(default)]
    write_errors: Vec<WriteError>,
    write_concern_error: Option<Document>,
    operation_time: Option<Timestamp>,
    election_id: Option<ObjectId>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WriteError {
    index: i64,
    code: i32,
    #[serde(default)]
    errmsg: String,
    key_pattern: Option<Document>,
}

/// The result of one statement, from its error or the lack of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// No error.
    Done,
    /// The filter did not match: another revision, or the idempotency key is in the same document. Or the document to
    /// insert exists already.
    NoMatch,
    /// Another document has the idempotency key.
    KeyTaken,
    /// A retry may succeed.
    Passing(String),
    /// A retry would not succeed.
    Failed(String),
}

/// The results of all statements of a command.
#[derive(Debug)]
pub(super) struct Fates {
    pub(super) fates: Vec<Fate>,
    /// The primary's operation time of the results.
    pub(super) decided_at: Option<Timestamp>,
    /// The epoch of the primary that executed the command.
    pub(super) epoch: Option<WriteEpoch>,
}

/// `DuplicateKey`.
const DUPLICATE_KEY: i32 = 11000;
/// `ImmutableField`.
const IMMUTABLE_FIELD: i32 = 66;

impl Fates {
    /// Reads the reply to a command of `statements` statements. `Ok(Err(reason))` if the results are not reliable yet:
    /// the statements were executed, but a majority may not have them, and then a new primary may not have them either.
    pub(super) fn read(
        reply: Document,
        statements: usize,
    ) -> Result<Result<Self, String>, StoreError> {
        let reply: Reply = mongodb::bson::deserialize_from_document(reply).map_err(unwritable)?;
        if let Some(error) = reply.write_concern_error {
            return Ok(Err(format!("not yet held by a majority: {error}")));
        }
        let mut fates = vec![Fate::Done; statements];
        for error in reply.write_errors {
            let fate = match error.code {
                IMMUTABLE_FIELD => Fate::NoMatch,
                DUPLICATE_KEY if error.is_on("answers.key") => Fate::KeyTaken,
                DUPLICATE_KEY => Fate::NoMatch,
                code if is_passing_code(code) => Fate::Passing(error.errmsg),
                code => Fate::Failed(format!("error {code}: {}", error.errmsg)),
            };
            match usize::try_from(error.index)
                .ok()
                .and_then(|index| fates.get_mut(index))
            {
                Some(slot) => *slot = fate,
                None => {
                    return Err(StoreError::Corrupt(format!(
                        "MongoDB tells of statement {}",
                        error.index
                    )));
                }
            }
        }
        Ok(Ok(Self {
            fates,
            decided_at: reply.operation_time,
            epoch: reply.election_id.map(|id| WriteEpoch(id.to_hex())),
        }))
    }
}

impl WriteError {
    fn is_on(&self, field: &str) -> bool {
        match &self.key_pattern {
            Some(pattern) => pattern.contains_key(field),
            None => self.errmsg.contains(field),
        }
    }
}
