//! Writes that are visible before a majority has them in its journal, and how to confirm later that they are durable.
//!
//! A primary includes the id of its election in the reply to every write. Its oplog is replicated in order, so a
//! majority that has one write has all earlier writes of this primary. If a majority acknowledges a later write with
//! the same election, the writes that were shown before are durable. With another election, the primary was replaced or
//! restarted meanwhile, and its writes that were not replicated are lost.
//!
//! A router (`mongos`) answers for many primaries, so nothing is shown early there.

use mongodb::bson::{Document, doc};

use super::{
    MongoStore,
    bulk::Concern,
    connection::{SERVER_LIMIT, limited, milliseconds},
    documents::unwritable,
    reply::Fates,
};
use tandem_event_path::store::{StoreError, WriteEpoch};

/// One document for each name, with the number of confirmations.
const COLLECTION: &str = "kept";

impl MongoStore {
    /// Whether writes may be shown early here, because one primary answers and names its elections. Queried once.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn has_write_epochs(&self) -> Result<bool, StoreError> {
        self.is_replica_set
            .get_or_try_init(async || {
                let hello = self.database().run_command(doc! { "hello": 1 });
                let hello = limited(async { hello.await }).await?;
                Ok(hello.contains_key("setName"))
            })
            .await
            .copied()
    }

    /// Writes a document under this name and waits until a majority has it. Returns whether everything that was written
    /// in `epoch` before is durable.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn confirm_durable(
        &self,
        name: &str,
        epoch: &WriteEpoch,
    ) -> Result<bool, StoreError> {
        let command = doc! {
            "update": COLLECTION,
            // The value changes each time, because a write without effect does not get into the oplog.
            "updates": [{ "q": { "_id": name }, "u": { "$inc": { "times": 1_i64 } }, "upsert": true }],
            "maxTimeMS": milliseconds(SERVER_LIMIT),
            "writeConcern": Concern::Majority.document(),
        };
        let reply: Document = limited(async { self.database().run_command(command).await }).await?;
        let is_written = reply.get_i32("n").is_ok_and(|written| written == 1);
        let fates = Fates::read(reply, 1)?.map_err(StoreError::Unavailable)?;
        if !is_written {
            return Err(unwritable(format!("{COLLECTION}: {:?}", fates.fates)));
        }
        Ok(fates.epoch.as_ref() == Some(epoch))
    }
}
