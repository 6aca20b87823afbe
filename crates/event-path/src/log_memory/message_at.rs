//! Reads the positions of applied messages again, to compare them with what the log has there now.

use std::{collections::BTreeMap, time::Duration};

use super::LogWatch;
use crate::{
    checkpoint::Checkpoint,
    log::{Attention, LogError, Offsets, records_at},
    store::StoreError,
};

/// How long reading the remembered messages of a topic may take.
const READ: Duration = Duration::from_secs(10);

impl LogWatch {
    /// The checkpoint of the message at an offset. `None` if there is no message, such as at a transaction marker.
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

    /// The same for one offset in each of some partitions. All offsets must be within the log.
    pub(super) async fn messages_at(
        &self,
        topic: &'static str,
        at: Offsets,
    ) -> Result<BTreeMap<i32, Option<Checkpoint>>, StoreError> {
        if at.is_empty() {
            return Ok(BTreeMap::new());
        }
        let away = |error: LogError| StoreError::Unavailable(error.to_string());
        let tail = self.0.log.tail(topic, &at, Attention::Prompt);
        let tail = tail.map_err(away)?;
        let read = self
            .0
            .clock
            .timeout(READ, records_at(tail.as_ref(), &at))
            .await;
        let found = read
            .map_err(|_| StoreError::Unavailable(format!("{topic} was silent")))?
            .map_err(away)?;
        Ok(found
            .into_iter()
            .map(|(partition, message)| (partition, message.as_ref().map(Checkpoint::of)))
            .collect())
    }
}
