//! What a store remembers of one partition, in the form that its registry holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    store::{Registry, StoreError},
};

/// What is remembered of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The first offset that existed.
    pub begin: i64,
    /// The last message that was applied.
    pub last: Checkpoint,
    /// A message that was applied earlier and was still there at the last close look. If a topic is created again and
    /// outgrows the old one within moments, reading continues without a break. Messages of the new topic then replace
    /// `last`, but not this one.
    #[serde(default)]
    pub proven: Option<Checkpoint>,
    /// Distinguished the topic from others of its name, if the client could tell. A copy of a log on another cluster is
    /// the same log.
    #[serde(default)]
    pub identity: Option<String>,
}

pub(super) fn name(topic: &str, partition: i32) -> String {
    format!("log/{topic}/{partition}")
}

/// What a store remembers of each partition of a topic, noted by any instance. It may be a moment behind what is
/// applied.
///
/// # Errors
/// When the store does not answer, or its entry cannot be read.
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
