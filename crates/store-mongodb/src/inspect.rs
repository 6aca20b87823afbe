//! What a server reports about itself, for a check whether it is suitable. Nothing is changed.

use mongodb::bson::{DateTime, Document, doc};

use super::{ConnectError, MongoStore, limited};
use tandem_event_path::store::StoreError;

/// What a server reports about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version, such as `7.0.14`.
    pub version: String,
    /// The name of its replica set, or `sharded` for a cluster behind mongos; none for a standalone server.
    pub set: Option<String>,
    /// How far its clock is ahead of this machine's, in milliseconds. The error is at most half of the request's
    /// duration.
    pub clock_ahead_ms: i64,
    /// Half of that duration, in milliseconds.
    pub uncertain_ms: i64,
}

/// Why the inspection failed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The connection string is invalid.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not answer, or refuses this user.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Queries the primary behind a connection string, as a user of `database`.
///
/// # Errors
/// If the connection string is invalid, or the server does not answer within 16 s.
pub async fn inspect(uri: &str, database: &str) -> Result<Server, InspectError> {
    let store = MongoStore::connect(uri, database).await?;
    let ask = async |command: Document| {
        limited(async { store.database().run_command(command).await }).await
    };
    // The ping opens the connection, so that the next request can measure the time.
    store.ping().await?;
    let before = DateTime::now().timestamp_millis();
    let hello = ask(doc! { "hello": 1 }).await?;
    let after = DateTime::now().timestamp_millis();
    // This read fails if the user has no rights in the database.
    ask(doc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true }).await?;
    let build = ask(doc! { "buildInfo": 1 }).await?;
    let sharded = hello
        .get_str("msg")
        .is_ok_and(|message| message == "isdbgrid");
    let uncertain_ms = (after - before) / 2;
    let middle = before + uncertain_ms;
    Ok(Server {
        version: build.get_str("version").unwrap_or("unknown").to_owned(),
        set: match hello.get_str("setName") {
            Ok(name) => Some(name.to_owned()),
            Err(_) => sharded.then(|| "sharded".to_owned()),
        },
        clock_ahead_ms: hello
            .get_datetime("localTime")
            .map_or(0, |there| there.timestamp_millis() - middle),
        uncertain_ms,
    })
}
