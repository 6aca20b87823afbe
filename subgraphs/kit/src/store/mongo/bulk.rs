//! Many statements that do no harm when carried out twice, in as few commands as may be: for a rebuild, which has them all at
//! hand and need not wait for company in the lanes.

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Database,
    bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, doc},
};

use super::{
    connection::{SERVER_LIMIT, limited, milliseconds, write_concern},
    documents::unwritable,
    reply::{Fate, Fates},
};
use crate::store::StoreError;

/// Statements in one command.
const STATEMENTS: usize = 500;
/// Bytes after which a command takes no further statement. A command may have 16 MiB, and a statement may be large.
const BYTES: usize = 8 * 1024 * 1024;
/// Commands on their way at once: while the server works on one, the next is being sent.
const COMMANDS: usize = 2;

/// What the statements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Of an `update` command: `{q, u, upsert}`.
    Update,
    /// Of a `delete` command: `{q, limit}`.
    Delete,
}

/// What became of many statements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Documents that matched, or were inserted.
    pub matched: u64,
    /// Which statements met another document with the same unique value.
    pub refused: Vec<usize>,
}

/// Carries out statements, in any order. Durable when this returns.
///
/// # Errors
/// When the server does not answer, or refuses one for another reason than a duplicate; some may then be carried out.
pub async fn bulk(
    database: &Database,
    collection: &str,
    kind: Bulk,
    statements: Vec<RawDocumentBuf>,
) -> Result<Done, StoreError> {
    let commands = commands(statements)
        .into_iter()
        .map(|(first, statements)| send(database, collection, kind, first, statements));
    stream::iter(commands)
        .buffer_unordered(COMMANDS)
        .try_fold(Done::default(), async |mut all, done| {
            all.matched += done.matched;
            all.refused.extend(done.refused);
            Ok(all)
        })
        .await
}

/// Statements shared out to commands, each with the place of its first one.
fn commands(statements: Vec<RawDocumentBuf>) -> Vec<(usize, Vec<RawDocumentBuf>)> {
    let mut commands: Vec<(usize, Vec<RawDocumentBuf>)> = Vec::new();
    let mut bytes = BYTES;
    for (place, statement) in statements.into_iter().enumerate() {
        match commands.last_mut() {
            Some((_, last)) if last.len() < STATEMENTS && bytes < BYTES => {
                bytes += statement.as_bytes().len();
                last.push(statement);
            }
            _ => {
                bytes = statement.as_bytes().len();
                commands.push((place, vec![statement]));
            }
        }
    }
    commands
}

async fn send(
    database: &Database,
    collection: &str,
    kind: Bulk,
    first: usize,
    statements: Vec<RawDocumentBuf>,
) -> Result<Done, StoreError> {
    let (name, field) = match kind {
        Bulk::Update => ("update", cstr!("updates")),
        Bulk::Delete => ("delete", cstr!("deletes")),
    };
    let count = statements.len();
    let mut array = RawArrayBuf::new();
    for statement in statements {
        array.push(statement);
    }
    let rest = doc! {
        name: collection,
        "ordered": false,
        "maxTimeMS": milliseconds(SERVER_LIMIT),
        "writeConcern": write_concern(),
    };
    let mut command = RawDocumentBuf::try_from(&rest).map_err(unwritable)?;
    command.append(field, array);
    let reply: Document = limited(async { database.run_raw_command(command).await }).await?;
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
            Fate::Passing(reason) | Fate::Failed(reason) => return Err(StoreError::Away(reason)),
        }
    }
    Ok(Done { matched, refused })
}
