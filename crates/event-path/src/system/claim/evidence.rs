//! Evidence of who owns topics that have no claim yet: their newest events and their data keys.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tandem_model::cloudevents;
use tandem_runtime::clock::Clock;

use crate::{
    data_keys::DataKey,
    log::{Arrival, Attention, Log, LogError, Offsets},
    sealing::Sealer,
    store::StoreError,
};

/// How many events at the end of each partition are examined for a system's identity.
const ASKED: i64 = 20;
/// How long to wait for one event.
const READ: Duration = Duration::from_secs(10);

/// Whether any of these data keys opens with a sealing key; `None` if there are none.
pub(super) fn opens_any(published: &[(String, String)], sealer: &Sealer) -> Option<bool> {
    let opens =
        |(subject, wrapped): &(String, String)| DataKey::unwrap(sealer, wrapped, subject).is_ok();
    (!published.is_empty()).then(|| published.iter().any(opens))
}

/// The system that the newest events of these topics name, if they name any.
pub(super) async fn system_of_events(
    log: &Arc<dyn Log>,
    topics: &[&'static str],
    clock: &Clock,
) -> Result<Option<String>, StoreError> {
    let away = |error: LogError| StoreError::Unavailable(error.to_string());
    for topic in topics {
        let ends = log.topic(topic).await.map_err(away)?.ends;
        let from: Offsets = ends
            .iter()
            .filter(|(_, (low, high))| low < high)
            .map(|(partition, (low, high))| (*partition, (high - ASKED).max(*low)))
            .collect();
        let mut left: HashSet<i32> = from.keys().copied().collect();
        if left.is_empty() {
            continue;
        }
        let tail = log.tail(topic, &from, Attention::Prompt).map_err(away)?;
        while !left.is_empty() {
            let arrival = clock.timeout(READ, tail.next()).await;
            match arrival.map_err(|_| StoreError::Unavailable(format!("{topic} was silent")))? {
                Ok(Arrival::Record(message)) => {
                    if let Some(system) = message.header(cloudevents::SYSTEM) {
                        return Ok(Some(system.to_owned()));
                    }
                }
                Ok(Arrival::End(partition)) => {
                    left.remove(&partition);
                }
                Err(error) => return Err(away(error)),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealing_key_is_tried_where_nobody_claimed_the_topics() {
        let (right, wrong) = (Sealer::new(&[7; 32]), Sealer::new(&[8; 32]));
        let published = [("1".to_owned(), DataKey::make(&right, "1").1)];
        assert_eq!(opens_any(&published, &right), Some(true));
        assert_eq!(opens_any(&published, &wrong), Some(false));
        assert_eq!(opens_any(&[], &wrong), None);
    }
}
