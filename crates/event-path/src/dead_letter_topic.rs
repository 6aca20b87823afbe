//! Copies of dead letters in `<topic>.DLT`, and notes on what happened to each letter. They are for people and other
//! tools, and are never read back.
//!
//! A letter is durable in the service's own store before it is copied, so a copy delays nothing. If Kafka refuses a
//! copy, it is sent without the message's own headers and body. If Kafka refuses that too, the copy is left out and
//! counted. While Kafka is down, copies wait in a bounded queue.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::{
    log::{Log, PublishError, Record},
    store::DeadLetter,
};
use tandem_runtime::{backoff::Backoff, shutdown::Shutdown};

/// How long a projection that parks letters waits for their copies.
const IN_LINE: Duration = Duration::from_secs(1);
/// Copies in flight at once.
const AT_ONCE: usize = 256;
/// Most bytes of a body in the queue of waiting copies.
const KEPT_WAITING: usize = 16 * 1024;
/// Letters in the queue. When it is full, further copies are left out.
const QUEUE: usize = 1_000;
/// How long the copy of a waiting letter is retried.
const PATIENCE: Duration = Duration::from_secs(600);
/// The pauses between two tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// The topic that receives copies of a topic's dead letters.
#[must_use]
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.DLT")
}

/// Copies letters. Clones share the queue.
#[derive(Clone, Debug)]
pub struct DeadLetterTopic {
    log: Arc<dyn Log>,
    shutdown: Shutdown,
    queue: mpsc::Sender<DeadLetter>,
    waiting: Arc<AtomicUsize>,
}

/// The outcome of publishing a copy or a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The record is in the topic.
    Whole,
    /// The record is in the topic, without the message's own headers and body.
    Cut,
    /// Kafka does not take the record in any form.
    Refused,
}

impl DeadLetterTopic {
    /// Starts the task that copies waiting letters, until the service stops.
    #[must_use]
    pub fn start(log: &Arc<dyn Log>, shutdown: &Shutdown) -> Self {
        let (queue, waiting_letters) = mpsc::channel(QUEUE);
        let copies = Self {
            log: Arc::clone(log),
            shutdown: shutdown.clone(),
            queue,
            waiting: Arc::default(),
        };
        shutdown.spawn(run(
            Arc::clone(log),
            waiting_letters,
            Arc::clone(&copies.waiting),
            shutdown.clone(),
        ));
        copies
    }

    /// Copies letters in order. Copies that take longer than `IN_LINE` are left to the background task.
    pub async fn copy(&self, letters: &[DeadLetter]) {
        // Letters that wait already go first, to keep the order.
        if self.waiting.load(Ordering::Acquire) > 0 {
            for letter in letters {
                self.put_off(letter);
            }
            return;
        }
        let copies: Vec<_> = letters
            .iter()
            .map(|letter| self.copy_within(IN_LINE, letter))
            .collect();
        let mut copies = stream::iter(copies).buffered(AT_ONCE);
        while let Some((letter, copied)) = copies.next().await {
            match copied {
                Some(done) => note(letter, done),
                None => self.put_off(letter),
            }
        }
    }

    /// The outcome of a copy. `None` if it is not known within the limit.
    async fn copy_within<'a>(
        &self,
        limit: Duration,
        letter: &'a DeadLetter,
    ) -> (&'a DeadLetter, Option<Recorded>) {
        let copying = copy(self.log.as_ref(), letter);
        let copied = self.shutdown.clock().timeout(limit, copying).await;
        (letter, copied.ok().and_then(Result::ok))
    }

    /// Leaves a copy to the background task. A large body is removed first, because many letters may wait.
    fn put_off(&self, letter: &DeadLetter) {
        let mut letter = letter.clone();
        if letter
            .payload
            .as_ref()
            .is_some_and(|body| body.len() > KEPT_WAITING)
        {
            letter.payload = None;
            letter.is_cut = true;
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.queue.try_send(letter) {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            skip(&error.into_inner(), "too many copies wait");
        }
    }

    /// Publishes a note on what happened to a letter.
    ///
    /// # Errors
    /// When Kafka is unavailable. A note that Kafka refuses for good is left out and counted.
    pub async fn record(&self, letter: &DeadLetter, resolution: &str) -> Result<(), PublishError> {
        let now = DateTime::<Utc>::from(self.shutdown.clock().now());
        let mut headers = described(letter, now);
        headers.push((RESOLUTION, Cow::from(resolution.as_bytes())));
        let done = send(self.log.as_ref(), letter, headers, None).await?;
        note(letter, done);
        Ok(())
    }
}

async fn run(
    log: Arc<dyn Log>,
    mut letters: mpsc::Receiver<DeadLetter>,
    waiting: Arc<AtomicUsize>,
    shutdown: Shutdown,
) {
    loop {
        let letter = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            letter = letters.recv() => letter,
        };
        let Some(letter) = letter else { return };
        let clock = shutdown.clock();
        let begun = clock.instant();
        let mut pauses = BACKOFF.pauses(clock);
        loop {
            let tried = tokio::select! {
                biased;
                () = shutdown.requested() => return,
                tried = copy(log.as_ref(), &letter) => tried,
            };
            match tried {
                Ok(done) => {
                    note(&letter, done);
                    break;
                }
                Err(error) if clock.since(begun) >= PATIENCE => {
                    skip(&letter, &error.to_string());
                    break;
                }
                Err(error) => {
                    tracing::warn!(topic = letter.topic, %error, "a dead letter is not copied yet; trying again");
                }
            }
            if !shutdown.sleep(pauses.next_pause()).await {
                return;
            }
        }
        waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

type Headers<'a> = Vec<(&'a str, Cow<'a, [u8]>)>;

async fn copy(log: &dyn Log, letter: &DeadLetter) -> Result<Recorded, PublishError> {
    let own = letter.headers.iter();
    let mut whole: Headers<'_> = own
        .map(|(name, value)| (name.as_str(), Cow::from(value.as_slice())))
        .collect();
    whole.extend(described(letter, letter.parked_at));
    if letter.is_cut {
        whole.push(CUT);
    }
    match send(log, letter, whole, letter.payload.as_deref()).await? {
        Recorded::Refused => {}
        done => return Ok(done),
    }
    let mut bare = described(letter, letter.parked_at);
    bare.push(CUT);
    match send(log, letter, bare, None).await? {
        Recorded::Refused => Ok(Recorded::Refused),
        Recorded::Whole | Recorded::Cut => Ok(Recorded::Cut),
    }
}

async fn send(
    log: &dyn Log,
    letter: &DeadLetter,
    headers: Headers<'_>,
    payload: Option<&[u8]>,
) -> Result<Recorded, PublishError> {
    let topic = dead_letter_topic(&letter.topic);
    let record = Record {
        headers,
        ..Record::new(&topic, &letter.key, payload)
    };
    match log.publish(record).await {
        Ok(_) => Ok(Recorded::Whole),
        Err(PublishError::Refused(_)) => Ok(Recorded::Refused),
        Err(error) => Err(error),
    }
}

fn note(letter: &DeadLetter, done: Recorded) {
    match done {
        Recorded::Whole => {}
        Recorded::Cut => {
            metrics::counter!("dead_letter_copies_cut_total", "projection" => letter.consumer.clone())
                .increment(1);
        }
        Recorded::Refused => skip(letter, "its topic does not take it"),
    }
}

fn skip(letter: &DeadLetter, reason: &str) {
    metrics::counter!("dead_letter_copies_skipped_total", "projection" => letter.consumer.clone())
        .increment(1);
    tracing::warn!(
        consumer = letter.consumer,
        topic = letter.topic,
        partition = letter.partition,
        offset = letter.offset,
        reason,
        "a dead letter is not copied to its topic; the store has it"
    );
}

/// The headers that a copy or a note adds to the message's own, each with its meaning.
pub const HEADERS: [(&str, &str); 8] = [
    (REASON, "Why it was set aside."),
    (CONSUMER, "Who set it aside: a projection of a service."),
    (TOPIC, "Where it was read."),
    (PARTITION, "In which partition."),
    (OFFSET, "At which offset."),
    (AT, "When it was set aside; of a note, when that was done."),
    (RESOLUTION, "What became of it: in notes alone."),
    (
        CUT_NAME,
        "`true` where the message's own headers or body are left out, for the topic does not take them.",
    ),
];

const REASON: &str = "dead-letter-reason";
const CONSUMER: &str = "dead-letter-consumer";
const TOPIC: &str = "dead-letter-topic";
const PARTITION: &str = "dead-letter-partition";
const OFFSET: &str = "dead-letter-offset";
const AT: &str = "dead-letter-at";
const RESOLUTION: &str = "dead-letter-resolution";
const CUT_NAME: &str = "dead-letter-cut";
/// Marks a record that lacks the message's own headers or body.
const CUT: (&str, Cow<'static, [u8]>) = (CUT_NAME, Cow::Borrowed(b"true"));

/// Headers that say why, where and when the message was parked.
fn described(letter: &DeadLetter, at: DateTime<Utc>) -> Headers<'_> {
    let text = |text: String| Cow::from(text.into_bytes());
    vec![
        (REASON, Cow::from(letter.reason.as_bytes())),
        (CONSUMER, Cow::from(letter.consumer.as_bytes())),
        (TOPIC, Cow::from(letter.topic.as_bytes())),
        (PARTITION, text(letter.partition.to_string())),
        (OFFSET, text(letter.offset.to_string())),
        (AT, text(at.to_rfc3339_opts(SecondsFormat::Millis, true))),
    ]
}
