//! What a store remembers of one partition, as it is written in its registry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    store::{Registry, StoreError},
};

/// What is remembered of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The first offset that there was.
    pub begin: i64,
    /// The last message that was applied.
    pub last: Checkpoint,
    /// One that was applied before, and was found there when it was looked closely last. A topic that is made anew and outgrows the old one
    /// within moments is read on without a break: what is applied of it takes the place of `last`, and not of this.
    #[serde(default)]
    pub proven: Option<Checkpoint>,
    /// What told the topic from others of its name, where the client could tell; a copy of a log on another cluster is the same log.
    #[serde(default)]
    pub identity: Option<String>,
}

pub(super) fn name(topic: &str, partition: i32) -> String {
    format!("log/{topic}/{partition}")
}

/// What a store remembers of each partition of a topic, whichever instance noted it: a moment behind what is applied.
///
/// # Errors
/// When the store does not answer, or what it remembers cannot be read.
pub async fn remembered(
    registry: &dyn Registry,
    topic: &str,
) -> Result<BTreeMap<i32, Remembered>, StoreError> {
    let prefix = name(topic, 0);
    let prefix = &prefix[..prefix.len() - 1];
    let mut found = BTreeMap::new();
    for (name, text) in registry.recall_all(prefix).await? {
        let partition = name[prefix.len()..].parse();
        let remembered = serde_json::from_str(&text);
        if let (Ok(partition), Ok(remembered)) = (partition, remembered) {
            found.insert(partition, remembered);
        } else {
            return Err(StoreError::Corrupt(format!(
                "{name} cannot be read: {text}"
            )));
        }
    }
    Ok(found)
}
