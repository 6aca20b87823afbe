//! Compares all logs with what the store remembers of them. Each difference is an alarm.

use super::{
    Alarm, LogWatch, Remembered,
    judging::{Found, at, judge},
};
use crate::{
    fault::{self, Fault},
    log::{Ends, LogError, Offsets},
    projection::ProjectionStatus,
    store::StoreError,
};

impl LogWatch {
    /// Whether any log was read again since its last close look.
    pub(super) fn is_read_again(&self) -> bool {
        let mut logs = self.0.logs.iter();
        logs.any(|(topic, status)| self.was_read_again(topic, status))
    }

    pub(super) fn was_read_again(&self, topic: &str, status: &ProjectionStatus) -> bool {
        let seen = self.state().read_again.get(topic).copied();
        status.read_again() != seen.unwrap_or_default()
    }

    /// Looks at all logs. With `closely`, it also compares the messages that were applied last.
    pub(super) async fn look(&self, closely: bool) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
        let before = self.alarms().unwrap_or_default();
        let mut alarms = Vec::new();
        for (topic, status) in &self.0.logs {
            let topic = *topic;
            let read_again = status.read_again();
            // Look closely at a topic with an alarm. The alarm ends when the old log is back, or when another instance
            // has accepted the log.
            let closely = closely
                || before.iter().any(|alarm| alarm.topic == topic)
                || self.was_read_again(topic, status);
            let recalled = self.recall(topic).await?;
            let ends = match self.0.log.topic(topic).await {
                Ok(state) => state.ends,
                // The store remembers partitions, so their absence is a difference and not a failure.
                Err(LogError::NoPartitions(_)) if !recalled.is_empty() => Ends::new(),
                Err(error) => return Err(StoreError::Unavailable(error.to_string())),
            };
            let mut found = Found::default();
            if closely {
                for place in [
                    |it: &Remembered| Some(it.last.offset),
                    |it: &Remembered| it.proven.as_ref().map(|proven| proven.offset),
                ] {
                    let within = recalled.iter().filter_map(|(partition, remembered)| {
                        let (low, high) = ends.get(partition)?;
                        let at = place(remembered)?;
                        let is_new = !found.contains_key(&(*partition, at));
                        (is_new && (*low..*high).contains(&at)).then_some((*partition, at))
                    });
                    let within: Offsets = within.collect();
                    for (partition, checkpoint) in self.messages_at(topic, within.clone()).await? {
                        found.insert((partition, within[&partition]), checkpoint);
                    }
                }
            }
            if recalled.is_empty() && self.alarms().is_none() {
                tracing::info!(
                    topic,
                    "this store remembers nothing of the log yet; it remembers what it applies from now on"
                );
            }
            for (partition, mut remembered) in recalled {
                let Some(&end) = ends.get(&partition) else {
                    alarms.push(Alarm {
                        topic: topic.to_owned(),
                        partition,
                        what: "the partition is not there any more".to_owned(),
                    });
                    continue;
                };
                let judged = judge(&remembered, end, |applied| at(&found, partition, applied));
                match judged.filter(|_| !fault::is_on(Fault::OtherLogNotTold)) {
                    Some(what) => alarms.push(Alarm {
                        topic: topic.to_owned(),
                        partition,
                        what,
                    }),
                    None if closely && remembered.proven.as_ref() != Some(&remembered.last) => {
                        remembered.proven = Some(remembered.last.clone());
                        self.put(topic, partition, &remembered).await?;
                    }
                    None => {}
                }
                self.state().known.insert((topic, partition), remembered);
            }
            if closely {
                self.state().read_again.insert(topic, read_again);
            }
        }
        if let Some(keys) = self.0.keys.get() {
            let found = keys.look(closely).await?;
            alarms.extend(found.into_iter().map(|(partition, what)| Alarm {
                topic: keys.topic().to_owned(),
                partition,
                what,
            }));
        }
        for alarm in alarms.iter().filter(|alarm| !before.contains(alarm)) {
            tracing::error!(
                topic = alarm.topic,
                partition = alarm.partition,
                "the log is not the one that this store was made from: {}; nothing is concluded from it",
                alarm.what
            );
        }
        self.set_alarms(alarms);
        Ok(())
    }
}
