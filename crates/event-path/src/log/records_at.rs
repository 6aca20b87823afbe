//! Reads the records at known positions of a topic.

use std::collections::BTreeMap;

use tandem_model::message::{Message, Position};

use super::{Arrival, LogError, Offsets, Tail};

/// The record at one offset in each of some partitions. The given tail must have been assigned these offsets. `None`
/// stands for an offset without a record, such as a transaction marker or a record that was removed. Waits as long as
/// the log is unavailable: the caller sets a limit.
///
/// # Errors
/// When the tail cannot go on.
pub async fn records_at(
    tail: &dyn Tail,
    at: &Offsets,
) -> Result<BTreeMap<i32, Option<Message>>, LogError> {
    let mut found = BTreeMap::new();
    while found.len() < at.len() {
        let (partition, record) = match tail.next().await? {
            Arrival::Record(record) => (record.position.partition, Some(record)),
            Arrival::End(partition) => (partition, None),
        };
        // A tail also reads partitions that were added later. Those were not asked for.
        let Some(asked) = at.get(&partition) else {
            continue;
        };
        // If the log does not have the offset, a tail begins at the first offset that exists.
        if record
            .as_ref()
            .is_some_and(|record| record.position.offset < *asked)
        {
            continue;
        }
        let record = record.filter(|record| record.position.offset == *asked);
        found.entry(partition).or_insert(record);
    }
    Ok(found)
}

/// The same for one position.
///
/// # Errors
/// When the tail cannot go on.
pub async fn record_at(tail: &dyn Tail, position: Position) -> Result<Option<Message>, LogError> {
    let Position { partition, offset } = position;
    let mut found = records_at(tail, &[(partition, offset)].into()).await?;
    Ok(found.remove(&partition).flatten())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
    };

    use async_trait::async_trait;

    use super::*;

    /// A tail that returns these arrivals.
    #[derive(Debug)]
    struct Coming(Mutex<VecDeque<Arrival>>);

    #[async_trait]
    impl Tail for Coming {
        fn assign(&self, _: &Offsets) -> Result<(), LogError> {
            Ok(())
        }

        async fn next(&self) -> Result<Arrival, LogError> {
            self.next_ready()
                .ok_or_else(|| LogError::Ended("nothing more comes".to_owned()))
        }

        fn next_ready(&self) -> Option<Arrival> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        }
    }

    fn coming<const N: usize>(arrivals: [Arrival; N]) -> Coming {
        Coming(Mutex::new(arrivals.into()))
    }

    fn record(partition: i32, offset: i64) -> Arrival {
        Arrival::Record(Message {
            topic: "topic".to_owned(),
            position: Position { partition, offset },
            key: None,
            headers: Vec::new(),
            payload: None,
            published_ms: None,
        })
    }

    async fn offsets_at<const N: usize>(
        arrivals: [Arrival; N],
        at: &Offsets,
    ) -> Result<Vec<(i32, Option<i64>)>, LogError> {
        let found = records_at(&coming(arrivals), at).await?.into_iter();
        let offset = |record: Message| record.position.offset;
        Ok(found
            .map(|(partition, record)| (partition, record.map(offset)))
            .collect())
    }

    #[tokio::test]
    async fn each_partition_is_asked_for_one_place_and_what_stands_behind_a_hole_is_not_it() {
        let at = Offsets::from([(0, 5), (1, 5), (2, 5)]);
        let arrivals = [
            record(0, 5),
            record(3, 5),
            record(0, 6),
            record(1, 6),
            Arrival::End(3),
            Arrival::End(2),
        ];
        assert_eq!(
            offsets_at(arrivals, &at).await.unwrap(),
            [(0, Some(5)), (1, None), (2, None)]
        );
    }

    #[tokio::test]
    async fn what_is_read_from_the_beginning_is_passed_over_up_to_the_place() {
        let at = Offsets::from([(0, 5)]);
        let read = offsets_at([record(0, 0), record(0, 4), record(0, 5)], &at);
        assert_eq!(read.await.unwrap(), [(0, Some(5))]);
        let read = offsets_at([record(0, 0), Arrival::End(0)], &at);
        assert_eq!(read.await.unwrap(), [(0, None)]);
    }

    #[tokio::test]
    async fn a_tail_that_cannot_go_on_says_so() {
        let at = Offsets::from([(0, 5)]);
        let read = offsets_at([record(1, 5)], &at).await;
        assert!(matches!(read, Err(LogError::Ended(_))));
    }

    #[tokio::test]
    async fn one_place_is_asked_for_by_itself() {
        let position = Position {
            partition: 2,
            offset: 7,
        };
        let there = record_at(&coming([record(0, 7), record(2, 7)]), position).await;
        assert_eq!(there.unwrap().unwrap().position, position);
        let gone = record_at(&coming([record(2, 8)]), position).await;
        assert_eq!(gone.unwrap(), None);
    }
}
