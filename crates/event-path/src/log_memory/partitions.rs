//! The logs partition by partition, as an operator sees them: what exists now, what the store remembers, and how much
//! is unread.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Alarm, LogWatch, Remembered};
use crate::{
    checkpoint::Checkpoint,
    log::{Ends, LogError, TopicState},
    store::StoreError,
};

/// A log that a store is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogView {
    /// The topic.
    pub topic: String,
    /// Distinguishes the present topic from others of its name. `None` if the client cannot tell.
    pub identity: Option<String>,
    /// Whether the log was compared with what is remembered of it. Until then it is unknown whether it is the same log.
    pub checked: bool,
    /// The partitions, in order: those that exist, and those that the store remembers.
    pub partitions: Vec<PartitionView>,
}

/// One partition of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionView {
    /// The number of the partition.
    pub partition: i32,
    /// The first offset that exists. `None` if the partition does not exist.
    pub begin: Option<i64>,
    /// The offset behind the last message. `None` if the partition does not exist.
    pub end: Option<i64>,
    /// Upper bound of the messages that are neither applied nor parked. Transaction markers take an offset each, so
    /// there may be fewer.
    pub unread: i64,
    /// What the store expects: where the log began, and the last applied message. `None` while nothing was applied.
    pub remembered: Option<Remembered>,
    /// How the log differs from that.
    pub alarm: Option<String>,
}

/// The partitions of a topic. The checkpoints that this instance has applied may be ahead of what is remembered. What
/// another instance has applied is known only from what is remembered.
fn partitions(
    topic: &str,
    ends: &Ends,
    remembered: BTreeMap<i32, Remembered>,
    applied: &BTreeMap<i32, Checkpoint>,
    alarms: &[Alarm],
) -> Vec<PartitionView> {
    let mut remembered = remembered;
    let mut all: Vec<i32> = ends.keys().chain(remembered.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
        .map(|partition| {
            let remembered = remembered.remove(&partition);
            let last = [
                remembered.as_ref().map(|it| it.last.offset),
                applied.get(&partition).map(|it| it.offset),
            ];
            let next = last.into_iter().flatten().max().map(|last| last + 1);
            let end = ends.get(&partition);
            let alarm = alarms
                .iter()
                .find(|alarm| alarm.topic == topic && alarm.partition == partition);
            PartitionView {
                partition,
                begin: end.map(|(low, _)| *low),
                end: end.map(|(_, high)| *high),
                unread: end.map_or(0, |(low, high)| (high - next.unwrap_or(*low)).max(0)),
                remembered,
                alarm: alarm.map(|alarm| alarm.what.clone()),
            }
        })
        .collect()
}

impl LogWatch {
    /// The present state of the logs, each with what the store remembers of it.
    ///
    /// # Errors
    /// When Kafka or the store is unavailable.
    pub async fn logs(&self) -> Result<Vec<LogView>, StoreError> {
        let looked = self.alarms();
        let checked = looked.is_some();
        let alarms = looked.unwrap_or_default();
        let mut logs = Vec::with_capacity(self.0.logs.len());
        for (topic, status) in &self.0.logs {
            // This must come before reading the ends. A message that arrives in between then counts as unread. In the
            // other order, applied offsets could lie behind the end.
            let remembered = self.recall(topic).await?;
            let applied = status.checkpoints();
            let TopicState { identity, ends } = match self.0.log.topic(topic).await {
                Ok(state) => state,
                Err(LogError::NoPartitions(_)) => TopicState::default(),
                Err(error) => return Err(StoreError::Unavailable(error.to_string())),
            };
            logs.push(LogView {
                topic: (*topic).to_owned(),
                identity,
                checked,
                partitions: partitions(topic, &ends, remembered, &applied, &alarms),
            });
        }
        Ok(logs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(offset: i64) -> Checkpoint {
        Checkpoint {
            offset,
            fingerprint: "f".to_owned(),
        }
    }

    fn remembered(begin: i64, last: i64) -> Remembered {
        Remembered {
            begin,
            last: checkpoint(last),
            proven: None,
            identity: None,
        }
    }

    #[test]
    fn what_is_unread_is_told_of_each_partition_whoever_has_applied_it() {
        let ends = Ends::from([(0, (0, 10)), (1, (2, 10)), (2, (3, 7)), (3, (0, 0))]);
        let known = BTreeMap::from([(0, remembered(0, 4)), (1, remembered(2, 9))]);
        let applied = BTreeMap::from([(0, checkpoint(7)), (1, checkpoint(5))]);
        let told = partitions("t", &ends, known, &applied, &[]);
        let unread: Vec<_> = told.iter().map(|it| (it.partition, it.unread)).collect();
        assert_eq!(unread, [(0, 2), (1, 0), (2, 4), (3, 0)]);
    }

    #[test]
    fn a_partition_that_is_gone_is_told_with_what_is_remembered_and_the_alarm() {
        let alarm = Alarm {
            topic: "t".to_owned(),
            partition: 5,
            what: "the partition is not there any more".to_owned(),
        };
        let known = BTreeMap::from([(5, remembered(0, 4))]);
        let told = partitions(
            "t",
            &Ends::new(),
            known,
            &BTreeMap::new(),
            std::slice::from_ref(&alarm),
        );
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].begin, told[0].end, told[0].unread),
            (None, None, 0)
        );
        assert_eq!(told[0].alarm.as_deref(), Some(alarm.what.as_str()));
        assert_eq!(told[0].remembered, Some(remembered(0, 4)));
    }

    #[test]
    fn a_log_that_was_made_anew_has_no_negative_number_of_unread_messages() {
        let ends = Ends::from([(0, (0, 3))]);
        let known = BTreeMap::from([(0, remembered(0, 90))]);
        let told = partitions("t", &ends, known, &BTreeMap::new(), &[]);
        assert_eq!(told[0].unread, 0);
    }
}
