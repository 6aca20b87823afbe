//! Many statements that do no harm when carried out twice, in as few commands as may be: for a rebuild, which has them all at
//! hand and need not wait for company in the writers.

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

/// Statements in one command.
const STATEMENTS: usize = 500;
/// Bytes after which a command takes no further statement. A command may have 16 MiB, and a statement may be large.
const BYTES: usize = 8 * 1024 * 1024;
/// Commands on their way at once: while the server works on one, the next is being sent.
const COMMANDS: usize = 2;

/// What the statements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Of an `insert` command: whole documents.
    Insert,
    /// Of an `update` command: `{q, u, upsert}`.
    Update,
    /// Of a `delete` command: `{q, limit}`.
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

    /// The command that carries these statements out in any order.
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

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// A majority has it in its journal: it stays.
    Majority,
    /// The primary has carried it out: readers see it, and a crash may undo it. See [`super::write_epoch`].
    Primary,
}

impl Concern {
    /// As commands name it.
    pub(super) fn document(self) -> Document {
        match self {
            Self::Majority => write_concern(),
            Self::Primary => doc! { "w": 1, "j": false },
        }
    }
}

/// What became of many statements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Documents that matched, or were inserted.
    pub matched: u64,
    /// Which statements met another document with the same unique value.
    pub refused: Vec<usize>,
    /// The epochs of the primaries that carried them out, each once; empty where the server does not tell.
    pub epochs: Vec<WriteEpoch>,
}

/// Carries out one statement for each thing, in any order. Durable when this returns. Statements are made when their
/// command's turn comes, so that the server works on one while the next is being made.
///
/// # Errors
/// What making a statement fails with, or when the server does not answer, or refuses one for another reason than a
/// duplicate; some may then be carried out.
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

/// The same as [`bulk`], as durable as `concern` says.
///
/// # Errors
/// Those of [`bulk`].
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
    /// What became of more of them.
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
    /// Sends the statements of some things, in one command if they are not too large for it.
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
        let fates = Fates::read(reply, count)?.map_err(StoreError::Away)?;
        let mut refused = Vec::new();
        for (place, fate) in fates.fates.into_iter().enumerate() {
            match fate {
                Fate::Done => {}
                Fate::NoMatch | Fate::KeyTaken => refused.push(first + place),
                Fate::Passing(reason) | Fate::Failed(reason) => {
                    return Err(StoreError::Away(reason));
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
