//! Reads back the messages that were applied: what is at their places in the log now.

use std::{collections::HashMap, time::Duration};

use super::LogWatch;
use crate::{
    checkpoint::Checkpoint,
    log::{Arrival, Attention, LogError, Offsets},
    store::StoreError,
};

/// How long a remembered message may take to be read.
const READ: Duration = Duration::from_secs(10);

impl LogWatch {
    /// The checkpoint of the message at an offset; `None` if there is none at that place, as where a transaction ended.
    pub(super) async fn message_at(
        &self,
        topic: &'static str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let mut found = self
            .messages_at(topic, [(partition, offset)].into())
            .await?;
        Ok(found.remove(&partition).flatten())
    }

    /// The same for one offset in each of some partitions, all of which must be within the log.
    pub(super) async fn messages_at(
        &self,
        topic: &'static str,
        at: Offsets,
    ) -> Result<HashMap<i32, Option<Checkpoint>>, StoreError> {
        let away = |error: LogError| StoreError::Away(error.to_string());
        let mut found = HashMap::with_capacity(at.len());
        if at.is_empty() {
            return Ok(found);
        }
        let tail = self.0.log.tail(topic, &at, Attention::Prompt);
        let tail = tail.map_err(away)?;
        while found.len() < at.len() {
            let arrival = self.0.clock.timeout(READ, tail.next()).await;
            let silent = |_| StoreError::Away(format!("{topic} was silent"));
            let (partition, message) = match arrival.map_err(silent)?.map_err(away)? {
                Arrival::Record(message) => (message.position.partition, Some(message)),
                Arrival::End(partition) => (partition, None),
            };
            // Partitions that were added are read too, and were not asked for.
            let Some(asked) = at.get(&partition) else {
                continue;
            };
            let message = message.filter(|message| message.position.offset == *asked);
            found
                .entry(partition)
                .or_insert_with(|| message.as_ref().map(Checkpoint::of));
        }
        Ok(found)
    }
}
