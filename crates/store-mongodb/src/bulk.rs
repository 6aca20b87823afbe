//! Sends many idempotent statements in as few commands as possible. It serves rebuilds, which have all statements at
//! hand and need not wait for others as group commit does.

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Database,
    bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, doc},
};

use super::{
    connection::{SERVER_LIMIT, limited, milliseconds, write_concern},
    documents::unwritable,
    reply::{Fate, Fates},
    spans,
};
use tandem_event_path::store::{StoreError, WriteEpoch};

/// Most statements in one command.
const STATEMENTS: usize = 500;
/// Size in bytes after which a command gets no further statement. A command may have 16 MiB, and one statement may be
/// large.
const BYTES: usize = 8 * 1024 * 1024;
/// How many commands are in flight. While the server processes one, the next is sent.
const COMMANDS: usize = 2;

/// The kind of the statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Statements of an `insert` command: whole documents.
    Insert,
    /// Statements of an `update` command: `{q, u, upsert}`.
    Update,
    /// Statements of a `delete` command: `{q, limit}`.
    Delete,
}

impl Bulk {
    /// The name of the command.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The command that executes these statements in any order.
    pub(super) fn command(
        self,
        collection: &str,
        statements: RawArrayBuf,
        concern: Concern,
    ) -> Result<RawDocumentBuf, StoreError> {
        let (name, field) = match self {
            Self::Insert => ("insert", cstr!("documents")),
            Self::Update => ("update", cstr!("updates")),
            Self::Delete => ("delete", cstr!("deletes")),
        };
        let rest = doc! {
            name: collection,
            "ordered": false,
            "maxTimeMS": milliseconds(SERVER_LIMIT),
            "writeConcern": concern.document(),
        };
        let mut command = RawDocumentBuf::try_from(&rest).map_err(unwritable)?;
        command.append(field, statements);
        Ok(command)
    }
}

/// The write concern of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// A majority has the write in its journal, so it is durable.
    Majority,
    /// The primary has executed the write. Readers see it, but a crash may undo it. See [`super::write_epoch`].
    Primary,
}

impl Concern {
    /// The form of the concern in commands.
    pub(super) fn document(self) -> Document {
        match self {
            Self::Majority => write_concern(),
            Self::Primary => doc! { "w": 1, "j": false },
        }
    }
}

/// The result of many statements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// How many documents matched or were inserted.
    pub matched: u64,
    /// The statements that failed because another document has the same unique value.
    pub refused: Vec<usize>,
    /// The epochs of the primaries that executed the statements, each once. Empty if the server does not report them.
    pub epochs: Vec<WriteEpoch>,
}

/// Executes one statement for each of `things`, in any order. They are durable when this returns. The statements of a
/// command are made just before it is sent, so that the server processes one command while the next is being made.
///
/// # Errors
/// The error of making a statement. Also when the server does not answer, or refuses a statement for another reason
/// than a duplicate; some statements may have been executed then.
pub async fn bulk<T: Sync>(
    database: &Database,
    collection: &str,
    kind: Bulk,
    things: &[T],
    statement: impl Fn(&T) -> Result<RawDocumentBuf, StoreError> + Send + Sync,
) -> Result<Done, StoreError> {
    let concern = Concern::Majority;
    bulk_with(concern, database, collection, kind, things, statement).await
}

/// Like [`bulk`], with this write concern.
///
/// # Errors
/// As [`bulk`].
pub async fn bulk_with<T: Sync>(
    concern: Concern,
    database: &Database,
    collection: &str,
    kind: Bulk,
    things: &[T],
    statement: impl Fn(&T) -> Result<RawDocumentBuf, StoreError> + Send + Sync,
) -> Result<Done, StoreError> {
    let _recorded = spans::command(kind.name(), collection);
    let commands = Commands {
        database,
        collection,
        kind,
        concern,
        statement,
    };
    let parts: Vec<_> = things
        .chunks(STATEMENTS)
        .enumerate()
        .map(|(part, things)| commands.send_some(part * STATEMENTS, things))
        .collect();
    stream::iter(parts)
        .buffer_unordered(COMMANDS)
        .try_fold(Done::default(), async |mut all, done| {
            all.add(done);
            Ok(all)
        })
        .await
}

impl Done {
    /// Adds the result of further statements.
    pub fn add(&mut self, other: Self) {
        self.matched += other.matched;
        self.refused.extend(other.refused);
        for epoch in other.epochs {
            if !self.epochs.contains(&epoch) {
                self.epochs.push(epoch);
            }
        }
    }
}

struct Commands<'a, S> {
    database: &'a Database,
    collection: &'a str,
    kind: Bulk,
    concern: Concern,
    statement: S,
}

impl<S> Commands<'_, S> {
    /// Sends the statements for some of the things, in one command unless they are too large for it.
    async fn send_some<T>(&self, first: usize, things: &[T]) -> Result<Done, StoreError>
    where
        S: Fn(&T) -> Result<RawDocumentBuf, StoreError>,
    {
        let mut all = Done::default();
        let mut statements = RawArrayBuf::new();
        let (mut from, mut bytes) = (first, 0);
        for (place, thing) in things.iter().enumerate() {
            let statement = (self.statement)(thing)?;
            let length = statement.as_bytes().len();
            if bytes > 0 && bytes + length > BYTES {
                let full = std::mem::take(&mut statements);
                all.add(self.send(from, first + place - from, full).await?);
                (from, bytes) = (first + place, 0);
            }
            bytes += length;
            statements.push(statement);
        }
        let rest = first + things.len() - from;
        all.add(self.send(from, rest, statements).await?);
        Ok(all)
    }

    async fn send(
        &self,
        first: usize,
        count: usize,
        statements: RawArrayBuf,
    ) -> Result<Done, StoreError> {
        let command = self
            .kind
            .command(self.collection, statements, self.concern)?;
        let sending = async { self.database.run_raw_command(command).await };
        let reply: Document = limited(sending).await?;
        let matched = match reply.get("n") {
            Some(Bson::Int32(matched)) => u64::try_from(*matched).unwrap_or_default(),
            Some(Bson::Int64(matched)) => u64::try_from(*matched).unwrap_or_default(),
            _ => 0,
        };
        let fates = Fates::read(reply, count)?.map_err(StoreError::Unavailable)?;
        let mut refused = Vec::new();
        for (place, fate) in fates.fates.into_iter().enumerate() {
            match fate {
                Fate::Done => {}
                Fate::NoMatch | Fate::KeyTaken => refused.push(first + place),
                Fate::Passing(reason) | Fate::Failed(reason) => {
                    return Err(StoreError::Unavailable(reason));
                }
            }
        }
        Ok(Done {
            matched,
            refused,
            epochs: fates.epoch.into_iter().collect(),
        })
    }
}
