//! Reads a topic in batches, ahead of the writer that consumes them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::error::{RebuildError, SILENCE};
use crate::fault::{self, Fault};
use crate::held_back::{HeldBackParts, readable_ends};
use crate::log::{Arrival, Attention, Ends, Log, LogError, Offsets, Tail};
use tandem_model::message::{Message, Position};
use tandem_runtime::{clock::Clock, shutdown::Shutdown};

/// Messages in a batch. In larger batches, more revisions of one aggregate go into one write.
const BATCH: usize = 5_000;
/// A batch is full when its bodies have this many bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A batch of this size is handed over when no more messages are ready and the writer waits. A smaller one first waits
/// for [`LINGER`].
const ENOUGH: usize = 1_000;
const LINGER: Duration = Duration::from_millis(100);
/// How long to wait for the end of a transaction that hides a part of the log.
const HELD_BACK: Duration = Duration::from_secs(15);
/// Pause after an error from which the client does not recover by itself.
const PAUSE: Duration = Duration::from_millis(100);

/// A position in a topic, from which reading continues.
pub(super) struct Reading {
    port: Arc<dyn Log>,
    shutdown: Shutdown,
    topic: &'static str,
    next: Offsets,
    /// Kept open between two readings, so that the second need not connect to the brokers again.
    log: Option<Box<dyn Tail>>,
}

/// Why reading stopped before the end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nothing arrived for [`SILENCE`].
    Silent,
    /// Something could not be read, even after retries.
    Unreadable(LogError),
    /// The consumer of the batches is gone.
    Unwanted,
}

pub(super) fn early(ended: &Ended, topic: &'static str, read: u64, total: u64) -> RebuildError {
    match ended {
        Ended::Unwanted => RebuildError::Stopping,
        Ended::Silent => RebuildError::Silent { topic, read, total },
        Ended::Unreadable(error) => RebuildError::Log(error.clone()),
    }
}

/// The open tail and the offsets from which to continue, or why reading stopped early.
type Read = Result<(Box<dyn Tail>, Offsets), Ended>;

/// Reading in the background. At most two batches wait for the consumer.
pub(super) struct Ahead {
    pub(super) batches: mpsc::Receiver<Vec<Message>>,
    task: AbortOnDropHandle<Read>,
}

impl Reading {
    /// Starts at the beginning of a topic.
    pub(super) fn new(port: &Arc<dyn Log>, topic: &'static str, shutdown: &Shutdown) -> Self {
        Self {
            port: Arc::clone(port),
            shutdown: shutdown.clone(),
            topic,
            next: Offsets::new(),
            log: None,
        }
    }

    /// Starts at these offsets of a topic.
    pub(super) fn at(
        port: &Arc<dyn Log>,
        topic: &'static str,
        from: Offsets,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            next: from,
            ..Self::new(port, topic, shutdown)
        }
    }

    /// The present ends of the topic. If a transaction hides records behind it, this waits for its end, for
    /// [`HELD_BACK`] at most.
    ///
    /// # Errors
    /// [`RebuildError::HeldBack`] when the transaction is still open then. Also when the log does not answer.
    pub(super) async fn ends(&self) -> Result<Ends, RebuildError> {
        let tell = |parts: &HeldBackParts| {
            tracing::warn!(topic = self.topic, limit = ?HELD_BACK, "waiting for the end of a transaction, behind which nothing can be read: {parts}");
        };
        let clock = self.shutdown.clock();
        let looked = tokio::select! {
            biased;
            () = self.shutdown.requested() => return Err(RebuildError::Stopping),
            looked = readable_ends(self.port.as_ref(), self.topic, HELD_BACK, clock, tell) => looked,
        };
        let (ends, parts) = looked?;
        if parts.is_empty() {
            return Ok(ends);
        }
        Err(RebuildError::HeldBack {
            topic: self.topic,
            parts,
        })
    }

    /// The number of messages from here to these ends.
    pub(super) fn left(&self, ends: &Ends) -> u64 {
        let left: i64 = ends
            .iter()
            .map(|(partition, (low, high))| {
                let next = self.next.get(partition).copied().unwrap_or(*low);
                (high - next).max(0)
            })
            .sum();
        u64::try_from(left).unwrap_or_default()
    }

    /// Starts reading to these ends.
    pub(super) fn start(&mut self, ends: &Ends) -> Result<Ahead, LogError> {
        for (partition, (low, _)) in ends {
            self.next.entry(*partition).or_insert(*low);
        }
        // The tail is assigned again even if it is open. Otherwise an end that it reached earlier could be taken for
        // one of these ends.
        let log = match self.log.take() {
            Some(log) => log.assign(&self.next).map(|()| log)?,
            None => self.port.tail(self.topic, &self.next, Attention::Prompt)?,
        };
        let left = ends
            .iter()
            .filter(|(partition, (_, high))| self.next[*partition] < *high)
            .map(|(partition, (_, high))| (*partition, *high))
            .collect();
        let (batches_in, batches) = mpsc::channel(1);
        let reader = Reader {
            log,
            clock: self.shutdown.clock().clone(),
            next: self.next.clone(),
            left,
        };
        Ok(Ahead {
            batches,
            task: AbortOnDropHandle::new(self.shutdown.spawn(reader.run(batches_in))),
        })
    }

    /// Takes over the tail and the offsets where reading ended.
    pub(super) async fn finish(&mut self, ahead: Ahead) -> Result<(), Ended> {
        drop(ahead.batches);
        let (log, next) = ahead.task.await.map_err(|_| Ended::Unwanted)??;
        (self.log, self.next) = (Some(log), next);
        Ok(())
    }
}

struct Reader {
    log: Box<dyn Tail>,
    clock: Clock,
    next: Offsets,
    /// The ends of the partitions that are not read to their end yet.
    left: HashMap<i32, i64>,
}

#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH || self.bytes >= BATCH_BYTES
    }
}

impl Reader {
    async fn run(mut self, batches: mpsc::Sender<Vec<Message>>) -> Read {
        while !self.left.is_empty() {
            let batch = self.batch(&batches).await?;
            batches
                .send(batch.messages)
                .await
                .map_err(|_| Ended::Unwanted)?;
        }
        Ok((self.log, self.next))
    }

    /// Reads until the batch is full or its time is up.
    async fn batch(&mut self, batches: &mpsc::Sender<Vec<Message>>) -> Result<Batch, Ended> {
        let mut batch = Batch::default();
        let clock = self.clock.clone();
        let first = clock.timeout(SILENCE, self.wait()).await;
        self.take(first.map_err(|_| Ended::Silent)??, &mut batch);
        let lingered = clock.instant() + LINGER;
        loop {
            while !batch.is_full() && !self.left.is_empty() {
                let Some(arrival) = self.log.next_ready() else {
                    break;
                };
                self.take(arrival, &mut batch);
            }
            if batch.is_full() || self.left.is_empty() {
                return Ok(batch);
            }
            let is_due = batch.messages.len() >= ENOUGH || clock.instant() >= lingered;
            let arrival = tokio::select! {
                biased;
                arrival = self.wait() => arrival,
                permit = batches.reserve(), if is_due => {
                    return permit.map(|_| batch).map_err(|_| Ended::Unwanted);
                }
                () = clock.sleep_until(lingered), if !is_due => continue,
            };
            self.take(arrival?, &mut batch);
        }
    }

    async fn wait(&self) -> Result<Arrival, Ended> {
        loop {
            match self.log.next().await {
                Ok(arrival) => return Ok(arrival),
                Err(error @ LogError::Unreadable(_)) => return Err(Ended::Unreadable(error)),
                Err(error) => {
                    tracing::debug!(%error, "the log is being reached");
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(&mut self, arrival: Arrival, batch: &mut Batch) {
        let message = match arrival {
            Arrival::Record(message) => message,
            Arrival::End(_) if fault::is_on(Fault::HoleTakenForRecord) => return,
            Arrival::End(partition) => {
                // Only gaps remain up to the end.
                if let Some(high) = self.left.remove(&partition) {
                    self.next.insert(partition, high);
                }
                return;
            }
        };
        let Position { partition, offset } = message.position;
        self.next.insert(partition, offset + 1);
        if self
            .left
            .get(&partition)
            .is_some_and(|high| offset + 1 >= *high)
        {
            self.left.remove(&partition);
        }
        batch.bytes += message.payload.as_ref().map_or(0, Vec::len);
        batch.messages.push(message);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicI64, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::log::{Member, Membership, PublishError, Publisher, Record, TopicState};

    /// A log of one partition that ends at 9. Readers see it up to this offset.
    #[derive(Debug)]
    struct Held(Arc<AtomicI64>);

    #[async_trait]
    impl Log for Held {
        async fn ready(&self) -> bool {
            true
        }

        fn failure(&self) -> Option<String> {
            None
        }

        fn largest_record(&self) -> usize {
            1_000_000
        }

        fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
            Err(LogError::Unavailable("nothing is published".to_owned()))
        }

        async fn publish(&self, _: Record<'_>) -> Result<Position, PublishError> {
            Err(PublishError::Unavailable("nothing is published".to_owned()))
        }

        async fn topic(&self, _: &str) -> Result<TopicState, LogError> {
            Ok(TopicState {
                identity: None,
                ends: [(0, (0, self.0.load(Ordering::SeqCst)))].into(),
            })
        }

        async fn uncommitted_ends(&self, _: &str) -> Result<Ends, LogError> {
            Ok([(0, (0, 9))].into())
        }

        fn tail(
            &self,
            _: &'static str,
            _: &Offsets,
            _: Attention,
        ) -> Result<Box<dyn Tail>, LogError> {
            Ok(Box::new(Broken))
        }

        fn join(&self, _: Membership) -> Result<Box<dyn Member>, LogError> {
            Err(LogError::Unavailable("nothing is read".to_owned()))
        }
    }

    /// A tail from which nothing can be read.
    #[derive(Debug)]
    struct Broken;

    #[async_trait]
    impl Tail for Broken {
        fn assign(&self, _: &Offsets) -> Result<(), LogError> {
            Ok(())
        }

        async fn next(&self) -> Result<Arrival, LogError> {
            Err(LogError::Unreadable(
                "partition 0 cannot be read".to_owned(),
            ))
        }

        fn next_ready(&self) -> Option<Arrival> {
            None
        }
    }

    fn reading(readable: &Arc<AtomicI64>, shutdown: &Shutdown) -> Reading {
        let log: Arc<dyn Log> = Arc::new(Held(Arc::clone(readable)));
        Reading::new(&log, "held", shutdown)
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_ends_the_reading_with_its_reason() {
        let (readable, shutdown) = (Arc::new(AtomicI64::new(9)), Shutdown::new());
        let mut reading = reading(&readable, &shutdown);
        let ahead = reading.start(&Ends::from([(0, (0, 9))])).unwrap();
        let ended = reading.finish(ahead).await.unwrap_err();
        let told = early(&ended, "held", 0, 9).to_string();
        assert_eq!(told, "partition 0 cannot be read");
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_open_transaction_hides_is_waited_for_and_then_said_to_be_held_back() {
        let (readable, shutdown) = (Arc::new(AtomicI64::new(4)), Shutdown::new());
        let held_back = reading(&readable, &shutdown).ends().await.unwrap_err();
        let told = held_back.to_string();
        assert!(
            told.starts_with("held is held back, partition 0 from offset 4 to 9:"),
            "{told}"
        );
        let waiting = reading(&readable, &shutdown);
        let (ends, ()) = tokio::join!(waiting.ends(), async {
            shutdown.clock().sleep(HELD_BACK / 2).await;
            readable.store(9, Ordering::SeqCst);
        });
        assert_eq!(ends.unwrap(), Ends::from([(0, (0, 9))]));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_transaction_ends_with_the_service() {
        let (readable, shutdown) = (Arc::new(AtomicI64::new(4)), Shutdown::new());
        shutdown.request("the test is over");
        let ended = reading(&readable, &shutdown).ends().await.unwrap_err();
        assert!(matches!(ended, RebuildError::Stopping));
    }
}
