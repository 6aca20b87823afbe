//! Reads a topic in batches, ahead of who takes them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::kafka::{
    connection::Kafka,
    message::{Message, Position},
    tail::{self, LogTail, Offsets, TailError},
};

/// Messages in a batch: the more, the more revisions of one aggregate collapse into one write.
const BATCH: usize = 5_000;
/// Bytes of bodies after which a batch takes no further message.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A batch of so many goes on when nothing more is here and somebody waits for it; a smaller one waits for [`LINGER`].
const ENOUGH: usize = 1_000;
const LINGER: Duration = Duration::from_millis(100);
/// How long the log may be silent before its end.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Pause after an error that the client does not go on from by itself.
const PAUSE: Duration = Duration::from_millis(100);

/// For each partition the first offset and the one behind its last message.
pub(super) type Ends = BTreeMap<i32, (i64, i64)>;

/// A place in a topic, from which it is read on.
pub(super) struct Reading {
    kafka: Kafka,
    topic: &'static str,
    next: Offsets,
    /// Open between two readings, so that the second need not find the brokers again.
    log: Option<LogTail>,
}

/// Why the reading ended before the end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nothing came for [`SILENCE`].
    Silent,
    /// Nobody takes the batches any more.
    Unwanted,
}

/// A reading that is under way: at most two batches are read and not taken.
pub(super) struct Ahead {
    pub(super) batches: mpsc::Receiver<Vec<Message>>,
    task: AbortOnDropHandle<Result<(LogTail, Offsets), Ended>>,
}

impl Reading {
    /// At the beginning of a topic.
    pub(super) fn new(kafka: &Kafka, topic: &'static str) -> Self {
        Self {
            kafka: kafka.clone(),
            topic,
            next: Offsets::new(),
            log: None,
        }
    }

    /// The topic's ends as of now.
    pub(super) async fn ends(&self) -> Result<Ends, TailError> {
        tail::ends(&self.kafka, self.topic).await
    }

    /// As far as it has been read, as the ends of another reading.
    pub(super) fn reached(&self, ends: &Ends) -> Ends {
        ends.iter()
            .map(|(partition, (low, _))| {
                let next = self.next.get(partition).copied().unwrap_or(*low);
                (*partition, (*low, next))
            })
            .collect()
    }

    /// Messages from here to these ends.
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

    /// Begins to read on to these ends.
    pub(super) fn start(&mut self, ends: &Ends) -> Result<Ahead, TailError> {
        let is_assigned = ends.keys().all(|part| self.next.contains_key(part));
        for (partition, (low, _)) in ends {
            self.next.entry(*partition).or_insert(*low);
        }
        let log = match self.log.take().filter(|_| is_assigned) {
            Some(log) => log,
            None => LogTail::open(&self.kafka, self.topic, &self.next)?,
        };
        let left = ends
            .iter()
            .filter(|(partition, (_, high))| self.next[*partition] < *high)
            .map(|(partition, (_, high))| (*partition, *high))
            .collect();
        let (batches_in, batches) = mpsc::channel(1);
        let reader = Reader {
            log,
            next: self.next.clone(),
            left,
        };
        Ok(Ahead {
            batches,
            task: AbortOnDropHandle::new(tokio::spawn(reader.run(batches_in))),
        })
    }

    /// Takes note of where a reading ended.
    pub(super) async fn finish(&mut self, ahead: Ahead) -> Result<(), Ended> {
        drop(ahead.batches);
        let (log, next) = ahead.task.await.map_err(|_| Ended::Unwanted)??;
        (self.log, self.next) = (Some(log), next);
        Ok(())
    }
}

struct Reader {
    log: LogTail,
    next: Offsets,
    /// For each partition that is not at its end, its end.
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
    async fn run(
        mut self,
        batches: mpsc::Sender<Vec<Message>>,
    ) -> Result<(LogTail, Offsets), Ended> {
        while !self.left.is_empty() {
            let batch = self.batch(&batches).await?;
            batches
                .send(batch.messages)
                .await
                .map_err(|_| Ended::Unwanted)?;
        }
        Ok((self.log, self.next))
    }

    /// Reads until the batch is full or its time has come.
    async fn batch(&mut self, batches: &mpsc::Sender<Vec<Message>>) -> Result<Batch, Ended> {
        let mut batch = Batch::default();
        let first = tokio::time::timeout(SILENCE, self.wait()).await;
        self.take(first.map_err(|_| Ended::Silent)?, &mut batch);
        let lingered = Instant::now() + LINGER;
        loop {
            while !batch.is_full() && !self.left.is_empty() {
                let Some(message) = self.log.next_ready() else {
                    break;
                };
                self.take(message, &mut batch);
            }
            if batch.is_full() || self.left.is_empty() {
                return Ok(batch);
            }
            let is_due = batch.messages.len() >= ENOUGH || Instant::now() >= lingered;
            let message = tokio::select! {
                message = self.wait() => message,
                permit = batches.reserve(), if is_due => {
                    return permit.map(|_| batch).map_err(|_| Ended::Unwanted);
                }
                () = tokio::time::sleep_until(lingered), if !is_due => continue,
            };
            self.take(message, &mut batch);
        }
    }

    async fn wait(&self) -> Message {
        loop {
            match self.log.next().await {
                Ok(message) => return message,
                Err(error) => {
                    tracing::debug!(%error, "the log is being reached");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn take(&mut self, message: Message, batch: &mut Batch) {
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
