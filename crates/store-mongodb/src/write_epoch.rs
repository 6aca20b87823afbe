//! Writes that readers see before a majority has them in its journal, and how it is told afterwards that they stay.
//!
//! A primary names its election in the reply to every write. Its log is replicated in order, so a majority that has one
//! write has all that this primary wrote before. When a later write is held by a majority and names the same election,
//! what was shown before it stays. When it names another one, the primary was replaced or restarted meanwhile, and what it had
//! not passed on is gone.
//!
//! A router (`mongos`) answers for many primaries. There nothing is shown early.

use mongodb::bson::{Document, doc};

use super::{
    MongoStore,
    bulk::Concern,
    connection::{SERVER_LIMIT, limited, milliseconds},
    documents::unwritable,
    reply::Fates,
};
use tandem_event_path::store::{StoreError, WriteEpoch};

/// One document for each name: how often something was made certain.
const COLLECTION: &str = "kept";

impl MongoStore {
    /// Whether writes may be shown early here: whether one primary answers, and names its elections. Asked once.
    ///
    /// # Errors
    /// When the server does not answer.
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

    /// Writes something under this name and waits until a majority has it: whether all that was written in `epoch` before stays.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn confirm_durable(
        &self,
        name: &str,
        epoch: &WriteEpoch,
    ) -> Result<bool, StoreError> {
        let command = doc! {
            "update": COLLECTION,
            // Each time another value: a write that changes nothing does not get into the log.
            "updates": [{ "q": { "_id": name }, "u": { "$inc": { "times": 1_i64 } }, "upsert": true }],
            "maxTimeMS": milliseconds(SERVER_LIMIT),
            "writeConcern": Concern::Majority.document(),
        };
        let reply: Document = limited(async { self.database().run_command(command).await }).await?;
        let is_written = reply.get_i32("n").is_ok_and(|written| written == 1);
        let fates = Fates::read(reply, 1)?.map_err(StoreError::Away)?;
        if !is_written {
            return Err(unwritable(format!("{COLLECTION}: {:?}", fates.fates)));
        }
        Ok(fates.epoch.as_ref() == Some(epoch))
    }
}
