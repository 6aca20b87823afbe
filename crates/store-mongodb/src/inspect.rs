//! What a server says of itself, for somebody who looks whether it is fit. It changes nothing.

use mongodb::bson::{DateTime, Document, doc};

use super::{ConnectError, MongoStore, limited};
use tandem_event_path::store::StoreError;

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version, such as `7.0.14`.
    pub version: String,
    /// The replica set that it belongs to, or `sharded` for a cluster behind mongos; none for a server alone.
    pub set: Option<String>,
    /// How far its clock is ahead of this machine's, in milliseconds: good to half of the time that the question took.
    pub clock_ahead_ms: i64,
    /// Half of that time, in milliseconds.
    pub uncertain_ms: i64,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The connection string does not fit.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not answer, or not to this user.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks the server of a connection string, in its primary, as a user of `database`.
///
/// # Errors
/// When the connection string does not fit, or the server does not answer within 16 s.
pub async fn inspect(uri: &str, database: &str) -> Result<Server, InspectError> {
    let store = MongoStore::connect(uri, database).await?;
    let ask = async |command: Document| {
        limited(async { store.database().run_command(command).await }).await
    };
    // The connection is made with the first question; the second one tells the time.
    store.ping().await?;
    let before = DateTime::now().timestamp_millis();
    let hello = ask(doc! { "hello": 1 }).await?;
    let after = DateTime::now().timestamp_millis();
    // A user without a right in this database is found out by a read of it.
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
