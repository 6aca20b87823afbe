//! Rebuilds a store from the log: every event from the beginning, the newest revision of each aggregate written once.
//!
//! What is rebuilt replaces what is stored aggregate by aggregate, each in one step and never by an older revision. So a
//! reader never sees less than before, commands go on meanwhile on every instance, an interruption at any point leaves
//! nothing half-built, and starting again is always right. `docs/decisions/0003-rebuild-in-place.md` says why this and not a swap.
//!
//! What is stored and the log has not is told, and left as it is: a log that was lost, cut or made anew has little, which says
//! nothing of what is stored. To remove it or to set it back takes an order that names the number (`taking_out`). An event is cleared
//! from the store after Kafka has it, so what is stored with nothing pending is in the log *by then*. Hence the order of a look:
//! look at what is stored, then read on to the end of the log, and only then judge.
//!
//! Reading, decoding and writing go on at the same time, each a batch ahead of the next.

mod aggregates;
mod cores;
mod filling;
mod logged;
mod reading;
mod trail;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future::ready};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    data_keys::Unopened,
    held_back::HeldBackParts,
    log::{Ends, Log, LogError},
    store::{PublishedRow, StoreError},
    waiting::{Takes, Waiting},
};
use tandem_model::message::Message;
use tandem_runtime::{
    backoff::Backoff,
    clock::{Clock, Instant},
    shutdown::Shutdown,
};

pub use aggregates::{ReadStates, RebuildAggregates};
pub use cores::on_all_cores;
pub use filling::{TruncatedLog, fill_new_store, is_filled, mark_filled};
pub use logged::Keeps;
use logged::Logged;
use reading::{Ended, Reading, SILENCE};
pub use trail::RebuildTrail;

/// So many messages behind the end, after two rounds, is the end.
const NEAR: u64 = 1_000;
/// Batches being written at once.
const WRITES: usize = 2;
/// Stored rows looked at, removed and set back at once.
const PAGE: usize = 1_000;
/// The pauses while store or log are away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// What a rebuild has done so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being rebuilt.
    pub target: String,
    /// Messages read.
    pub read: u64,
    /// Messages to read; grows while the log does.
    pub total: u64,
    /// Aggregates or entries written, or found to be right: less than read where several revisions collapsed into one write.
    pub written: u64,
    /// Messages that cannot be taken; they are dead letters of the consumer of this topic.
    pub refused: u64,
    /// Aggregates whose newest event in the log does not open and is not stored: it waits for its data key.
    #[serde(default)]
    pub waiting: u64,
    /// What is stored under ids that the log does not know. It is left as it is.
    #[serde(default)]
    pub unknown: u64,
    /// What is stored at revisions ahead of the log. It is left as it is.
    #[serde(default)]
    pub ahead: u64,
    /// Entries whose content is not the log's. They are left as they are, unless they were ordered to be made as the log has them.
    #[serde(default)]
    pub differing: u64,
    /// Entries that were made as the log has them.
    #[serde(default)]
    pub revert: u64,
    /// What is to be said of the log, if it is not whole or not the one that the store was made from.
    #[serde(default)]
    pub of_the_log: Option<String>,
    /// Seconds since the start.
    pub seconds: f64,
    /// Whether everything is read and written.
    pub done: bool,
}

/// Why a rebuild ended early. It can be started again at any time.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log went silent before its end.
    #[error("nothing came from {topic} for {} s, {read} of {total} messages read", SILENCE.as_secs())]
    Silent {
        /// Which topic.
        topic: &'static str,
        /// Messages read.
        read: u64,
        /// Messages to read.
        total: u64,
    },
    /// What lies behind a transaction that is open is in the log, and nobody can read it yet.
    #[error(
        "{topic} is held back, {parts}: a transaction of another producer is open there, and what lies behind it cannot be read yet. Try again when it has ended; Kafka gives it up by itself after its producer's `transaction.timeout.ms`"
    )]
    HeldBack {
        /// Which topic.
        topic: &'static str,
        /// What of it.
        parts: HeldBackParts,
    },
    /// A part of the work ended early.
    #[error(transparent)]
    BrokenOff(StoreError),
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
}

/// What a message says, as far as that can be told without a key.
#[derive(Clone, Debug)]
pub struct Heard<T> {
    /// Of whom.
    pub id: String,
    /// The revision that it made.
    pub revision: i64,
    /// The rest.
    pub told: T,
}

/// Something that is rebuilt from a topic: rows, each with an id and a revision.
#[async_trait]
pub trait Rebuilt: Send + Sync + 'static {
    /// What a message says.
    type Told: Send + Sync + 'static;
    /// What it takes to open what is sealed in messages.
    type Keys: Send + Sync + 'static;
    /// What is written.
    type Row: Send + Sync + 'static;

    /// What it is called, as progress shows it.
    fn name(&self) -> &'static str;

    /// The topic it is rebuilt from.
    fn topic(&self) -> &'static str;

    /// Which revisions of an id it keeps.
    fn keeps(&self) -> Keeps;

    /// Reads a message, `None` if it cannot be read. Pure: it asks nobody.
    fn hear(&self, message: &Message) -> Option<Heard<Self::Told>>;

    /// What it takes to open these.
    ///
    /// # Errors
    /// When that cannot be told now: it is asked again.
    async fn keys(&self, told: &[&Self::Told]) -> Result<Self::Keys, StoreError>;

    /// The row. Pure: it asks nobody.
    ///
    /// # Errors
    /// Why it does not open.
    fn open(&self, told: Self::Told, keys: &Self::Keys) -> Result<Self::Row, Unopened>;

    /// Where events wait that do not open, if any of them may be sealed.
    fn waiting(&self) -> Option<&Waiting> {
        None
    }

    /// The stored revisions of those of these ids that are stored.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn revisions(&self, ids: &[String]) -> Result<HashMap<String, i64>, StoreError>;

    /// Writes rows, each id and revision at most once, in order of id. Answers what was there with other content, if that is known.
    ///
    /// # Errors
    /// When the store is away: the same rows are given again.
    async fn write(&self, rows: &[Self::Row], entries: Entries) -> Result<Differing, StoreError>;

    /// What is stored of these, as it would be taken back; `None` for what is no longer stored.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn contents(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// A row of what [`Self::contents`] answered.
    ///
    /// # Errors
    /// When it is no such content.
    fn row_of(&self, content: &[u8]) -> Result<(String, i64, Self::Row), serde_json::Error>;

    /// At most `limit` stored rows behind `after` of which nothing is pending, in order; none when there are no more.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes rows, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Puts rows in the place of newer ones, each only if that is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn revert(&self, rows: &[(PublishedRow, Self::Row)]) -> Result<u64, StoreError>;
}

/// What is done about entries of an audit trail that are stored with other content than the log has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entries {
    /// They are left as they are, and told.
    #[default]
    Left,
    /// They are made as the log has them.
    Replaced,
}

/// What was stored with other content than the log has.
#[derive(Clone, Debug, Default)]
pub struct Differing {
    /// How many were made as the log has them.
    pub replaced: u64,
    /// What is left as it is: the contents as they would be taken back, empty if they cannot be read.
    pub left: Vec<Vec<u8>>,
}

/// How a rebuild is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// Whether what is stored and not in the log is looked for. A new store has nothing of the kind.
    pub looks: bool,
    /// What is done about entries that differ.
    pub entries: Entries,
    /// The log is not the one that the store was made from: what is stored at the same revision stays too.
    pub distrusts: bool,
    /// What the log lacks is to be written to it. So whatever it does not show counts as lacking, also where a message of the same id cannot
    /// be read, be it forged: to write once more what was there changes nothing. Where it may be removed from the store it does not count.
    pub restores: bool,
}

/// Something stored that the log has not.
#[derive(Clone, Debug)]
pub enum Lacking {
    /// Under an id that the log does not know, or an entry that it does not show.
    Unknown(PublishedRow),
    /// At a revision that is ahead of the log.
    Ahead(PublishedRow),
    /// An entry with other content than the log's, as it would be taken back; empty if it cannot be read.
    Differing(Vec<u8>),
}

/// What a rebuild did, and what it found stored that the log has not.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What it did.
    pub progress: Progress,
    /// What it left.
    pub lacking: Vec<Lacking>,
}

/// What is stored, as bytes from which it is taken back; `None` if it has no JSON form, which no state has brought about.
#[must_use]
pub fn content_of<T: Serialize>(stored: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(stored).ok()
}

/// Something that can be rebuilt, whatever it is made of.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// What it is called, as progress shows it.
    fn name(&self) -> &'static str;

    /// The topic it is rebuilt from.
    fn log(&self) -> &'static str;

    /// Rebuilds it from the beginning of its topic to its end, and on to where the end has moved meanwhile. It removes nothing and
    /// sets nothing back.
    ///
    /// It holds in memory about 100 bytes for each aggregate, and up to five batches of messages in their stages. `tell` hears of
    /// every step.
    ///
    /// # Errors
    /// See [`RebuildError`].
    async fn rebuild(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        order: Order,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Outcome, RebuildError>;

    /// Reads which events of it wait for a data key: whose aggregates they are is not to be decided on before.
    ///
    /// # Errors
    /// When the store is away.
    async fn recall_waiting(&self) -> Result<(), StoreError>;

    /// What is stored of these, as it would be taken back; `None` for what is no longer stored.
    ///
    /// # Errors
    /// When the store is away.
    async fn keep_copies(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Removes these, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away; some may then be removed.
    async fn take_out(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Puts what the log tells last in the place of these, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// See [`RebuildError`]; some may then be set back.
    async fn back_to_the_log(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        ahead: Vec<PublishedRow>,
        shutdown: &Shutdown,
    ) -> Result<u64, RebuildError>;

    /// Takes back what [`Self::keep_copies`] answered, unless something newer is stored. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is no such content; when the store is away.
    async fn take_back(&self, contents: &[Vec<u8>]) -> Result<u64, StoreError>;
}

#[async_trait]
impl<R: Rebuilt> Target for R {
    fn name(&self) -> &'static str {
        Rebuilt::name(self)
    }

    fn log(&self) -> &'static str {
        self.topic()
    }

    async fn rebuild(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        order: Order,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Outcome, RebuildError> {
        let told = Told {
            begun: shutdown.clock().instant(),
            clock: shutdown.clock().clone(),
            progress: Progress {
                target: Rebuilt::name(self.as_ref()).to_owned(),
                ..Progress::default()
            },
            tell,
        };
        let mut rebuild = Rebuild {
            reading: Reading::new(log, self.topic(), shutdown),
            logged: Logged::default(),
            target: self,
            order,
            differing: Vec::new(),
            shutdown,
            told,
        };
        rebuild.read_to_the_moving_end().await?;
        let lacking = rebuild.look_for_unlogged().await?;
        rebuild.told.progress.done = true;
        rebuild.told.step();
        Ok(Outcome {
            progress: rebuild.told.progress,
            lacking,
        })
    }

    async fn recall_waiting(&self) -> Result<(), StoreError> {
        match self.waiting() {
            Some(waiting) => waiting.load().await,
            None => Ok(()),
        }
    }

    async fn keep_copies(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.contents(seen).await
    }

    async fn take_out(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let mut removed = 0;
        for some in seen.chunks(PAGE) {
            removed += self.remove(some).await?;
        }
        Ok(removed)
    }

    async fn back_to_the_log(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        ahead: Vec<PublishedRow>,
        shutdown: &Shutdown,
    ) -> Result<u64, RebuildError> {
        let mut newest = newest_of(&self, log, &ahead, shutdown).await?;
        let rows: Vec<(PublishedRow, R::Row)> = ahead
            .into_iter()
            .filter_map(|seen| {
                let (revision, row) = newest.remove(&seen.id)?;
                (revision < seen.revision).then_some((seen, row))
            })
            .collect();
        let mut done = 0;
        for some in rows.chunks(PAGE) {
            done += until_done(self.as_ref(), shutdown, || self.revert(some)).await?;
        }
        Ok(done)
    }

    async fn take_back(&self, contents: &[Vec<u8>]) -> Result<u64, StoreError> {
        let mut rows = Vec::with_capacity(contents.len());
        // What could not be read is nothing to take back.
        for content in contents.iter().filter(|content| !content.is_empty()) {
            let row = self.row_of(content);
            rows.push(row.map_err(|error| StoreError::Corrupt(error.to_string()))?);
        }
        rows.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        let rows: Vec<R::Row> = rows.into_iter().map(|(_, _, row)| row).collect();
        self.write(&rows, Entries::Replaced).await?;
        Ok(rows.len() as u64)
    }
}

/// The progress, and who hears of it.
struct Told<'a> {
    begun: Instant,
    clock: Clock,
    progress: Progress,
    tell: &'a mut (dyn FnMut(Progress) + Send + Sync),
}

impl Told<'_> {
    fn step(&mut self) {
        self.progress.seconds = self.clock.since(self.begun).as_secs_f64();
        (self.tell)(self.progress.clone());
    }
}

/// Rows ready to be written, and what they came of.
struct Prepared<Row> {
    /// Each with its id and revision, in order of these.
    rows: Vec<(String, i64, Row)>,
    /// Of each id the newest event that does not open.
    unopened: Vec<Shut>,
    read: u64,
    refused: u64,
}

/// An event that does not open.
#[derive(Clone)]
struct Shut {
    id: String,
    revision: i64,
    message: Message,
    unopened: Unopened,
}

/// What became of a batch.
struct Written {
    read: u64,
    refused: u64,
    written: u64,
    differing: Differing,
    waiting: u64,
}

/// A rebuild that is under way.
struct Rebuild<'a, R: Rebuilt> {
    target: Arc<R>,
    order: Order,
    reading: Reading,
    logged: Logged,
    /// Entries that are left with other content than the log's.
    differing: Vec<Vec<u8>>,
    shutdown: &'a Shutdown,
    told: Told<'a>,
}

impl<R: Rebuilt> Rebuild<'_, R> {
    async fn read_to_the_moving_end(&mut self) -> Result<(), RebuildError> {
        let mut rounds = 0;
        loop {
            let ends = self.reading.ends().await?;
            let left = self.reading.left(&ends);
            // Under traffic the end is never reached for good: what came during the last short round came the live way too.
            rounds += 1;
            if left == 0 || (rounds > 2 && left < NEAR) {
                if let Some((partition, (low, _))) = ends.iter().find(|(_, (low, _))| *low > 0) {
                    self.told.progress.of_the_log = Some(format!(
                        "{} begins at offset {low} of partition {partition}: what is not in it may have been",
                        self.target.topic()
                    ));
                }
                return Ok(());
            }
            self.read_to(&ends).await?;
        }
    }

    async fn read_to_the_end_as_of_now(&mut self) -> Result<(), RebuildError> {
        let ends = self.reading.ends().await?;
        if self.reading.left(&ends) == 0 {
            return Ok(());
        }
        self.read_to(&ends).await
    }

    /// Reads on to these ends and writes what is told.
    async fn read_to(&mut self, ends: &Ends) -> Result<(), RebuildError> {
        let Self {
            target,
            reading,
            logged,
            shutdown,
            told,
            order,
            differing,
            ..
        } = self;
        told.progress.total = told.progress.read + reading.left(ends);
        told.step();
        let mut ahead = reading.start(ends)?;
        let (prepared_in, prepared) = mpsc::channel::<Prepared<R::Row>>(1);
        let preparing = async {
            while let Some(messages) = ahead.batches.recv().await {
                let batch = prepare(target, logged, messages, shutdown).await?;
                if prepared_in.send(batch).await.is_err() {
                    break;
                }
            }
            drop(prepared_in);
            Ok::<_, RebuildError>(())
        };
        // While one batch is being committed, the next is being encoded. In which order they are written does not matter.
        let written = ReceiverStream::new(prepared)
            .map(|batch| write(target, batch, *order, shutdown))
            .buffered(WRITES);
        let writing = written.try_for_each(|batch| {
            let progress = &mut told.progress;
            progress.read += batch.read;
            progress.total = progress.total.max(progress.read);
            progress.written += batch.written;
            progress.refused += batch.refused;
            progress.revert += batch.differing.replaced;
            progress.differing += batch.differing.left.len() as u64;
            differing.extend(batch.differing.left);
            progress.waiting += batch.waiting;
            told.step();
            ready(Ok(()))
        });
        tokio::select! {
            biased;
            () = shutdown.requested() => return Err(RebuildError::Stopping),
            done = async { tokio::try_join!(preparing, writing) } => done?,
        };
        self.finish(ahead).await
    }

    async fn finish(&mut self, ahead: reading::Ahead) -> Result<(), RebuildError> {
        let ended = self.reading.finish(ahead).await;
        let Progress { read, total, .. } = self.told.progress;
        ended.map_err(|ended| early(&ended, self.target.topic(), read, total))
    }

    /// What is stored and not in the log.
    async fn look_for_unlogged(&mut self) -> Result<Vec<Lacking>, RebuildError> {
        let differing = std::mem::take(&mut self.differing);
        let mut lacking: Vec<Lacking> = differing.into_iter().map(Lacking::Differing).collect();
        if !self.order.looks {
            return Ok(lacking);
        }
        let mut missed = self.look().await?;
        if missed.is_empty() {
            return Ok(lacking);
        }
        // What was published before the look is known after this.
        self.read_to_the_end_as_of_now().await?;
        let keeps = self.target.keeps();
        missed.retain(|seen| self.misses(seen));
        for seen in missed {
            tracing::warn!(
                target_name = self.target.name(),
                id = seen.id,
                revision = seen.revision,
                "stored, and not in the log"
            );
            if keeps == Keeps::Newest && self.logged.knows(&seen.id) {
                self.told.progress.ahead += 1;
                lacking.push(Lacking::Ahead(seen));
            } else {
                self.told.progress.unknown += 1;
                lacking.push(Lacking::Unknown(seen));
            }
        }
        Ok(lacking)
    }

    fn misses(&self, seen: &PublishedRow) -> bool {
        let may_be_unread = !self.order.restores && self.logged.is_doubtful(&seen.id);
        !may_be_unread && self.logged.misses(seen, self.target.keeps())
    }

    /// Looks at all that is stored with nothing pending: those that the log has not shown so far.
    async fn look(&self) -> Result<Vec<PublishedRow>, RebuildError> {
        let target = self.target.as_ref();
        let mut missed = Vec::new();
        let mut last: Option<PublishedRow> = None;
        loop {
            let after = last.as_ref();
            let page = until_done(target, self.shutdown, || target.published(after, PAGE)).await?;
            missed.extend(page.iter().filter(|seen| self.misses(seen)).cloned());
            match page.into_iter().next_back() {
                Some(seen) => last = Some(seen),
                None => return Ok(missed),
            }
        }
    }
}

fn early(ended: &Ended, topic: &'static str, read: u64, total: u64) -> RebuildError {
    match ended {
        Ended::Unwanted => RebuildError::Stopping,
        Ended::Silent => RebuildError::Silent { topic, read, total },
    }
}

/// Reads the log once more, for the newest revision of a few.
async fn newest_of<R: Rebuilt>(
    target: &Arc<R>,
    log: &Arc<dyn Log>,
    few: &[PublishedRow],
    shutdown: &Shutdown,
) -> Result<HashMap<String, (i64, R::Row)>, RebuildError> {
    let ids: HashSet<&str> = few.iter().map(|seen| seen.id.as_str()).collect();
    let mut newest: HashMap<String, Heard<R::Told>> = HashMap::with_capacity(ids.len());
    let mut reading = Reading::new(log, target.topic(), shutdown);
    let ends = reading.ends().await?;
    let total = reading.left(&ends);
    let mut ahead = reading.start(&ends)?;
    let mut read = 0;
    loop {
        let messages = tokio::select! {
            biased;
            () = shutdown.requested() => return Err(RebuildError::Stopping),
            messages = ahead.batches.recv() => messages,
        };
        let Some(messages) = messages else { break };
        read += messages.len() as u64;
        let theirs = messages
            .iter()
            .filter(|message| names_of(message).any(|name| ids.contains(name)));
        for heard in theirs.filter_map(|message| target.hear(message)) {
            let known = newest.get(&heard.id).map_or(0, |known| known.revision);
            if heard.revision > known {
                newest.insert(heard.id.clone(), heard);
            }
        }
    }
    reading
        .finish(ahead)
        .await
        .map_err(|ended| early(&ended, target.topic(), read, total))?;
    let heard: Vec<Heard<R::Told>> = newest.into_values().collect();
    let opened = open(target, heard, shutdown).await?;
    Ok(opened
        .into_iter()
        .filter_map(|(id, revision, row)| Some((id, (revision, row.ok()?))))
        .collect())
}

/// Whom a message names outside of its body.
fn names_of(message: &Message) -> impl Iterator<Item = &str> {
    message
        .key
        .as_deref()
        .into_iter()
        .chain(message.header("ce_subject"))
}

/// What a message says, and the message.
type Sighting<T> = (Heard<T>, Message);

/// Makes rows of messages: of each id those revisions that are kept.
async fn prepare<R: Rebuilt>(
    target: &Arc<R>,
    logged: &mut Logged,
    messages: Vec<Message>,
    shutdown: &Shutdown,
) -> Result<Prepared<R::Row>, RebuildError> {
    let read = messages.len() as u64;
    let mut refused = 0;
    let hearing = Arc::clone(target);
    let heard = on_all_cores(messages, move |message| match hearing.hear(&message) {
        Some(heard) => Ok((heard, message)),
        None => Err(names_of(&message).map(str::to_owned).collect::<Vec<_>>()),
    })
    .await
    .map_err(RebuildError::BrokenOff)?;
    // Of each id the revisions, the one to be written last.
    let mut by_id: HashMap<String, Vec<Sighting<R::Told>>> = HashMap::new();
    for heard in heard {
        match heard {
            Ok((heard, message)) => {
                let is_first = logged.note(&heard.id, heard.revision);
                if is_first || target.keeps() == Keeps::Newest {
                    let revisions = by_id.entry(heard.id.clone()).or_default();
                    // Of the same revision the one told last: it was told again with another sealing key.
                    let place =
                        revisions.partition_point(|(one, _)| one.revision <= heard.revision);
                    revisions.insert(place, (heard, message));
                }
            }
            Err(names) => {
                refused += 1;
                names.iter().for_each(|name| logged.doubt(name));
            }
        }
    }
    let mut rows: Vec<(String, i64, R::Row)> = Vec::with_capacity(by_id.len());
    let mut unopened: HashMap<String, Shut> = HashMap::new();
    while !by_id.is_empty() {
        let next: Vec<Sighting<R::Told>> = match target.keeps() {
            Keeps::Each => by_id.drain().flat_map(|(_, revisions)| revisions).collect(),
            Keeps::Newest => by_id.values_mut().filter_map(Vec::pop).collect(),
        };
        let (next, messages): (Vec<_>, Vec<_>) = next.into_iter().unzip();
        let opened = open(target, next, shutdown).await?;
        for ((id, revision, row), message) in opened.into_iter().zip(messages) {
            match row {
                Ok(row) => {
                    by_id.remove(&id);
                    rows.push((id, revision, row));
                }
                // The one before it may open.
                Err(reason) => {
                    unopened.entry(id.clone()).or_insert(Shut {
                        id,
                        revision,
                        message,
                        unopened: reason,
                    });
                }
            }
        }
        by_id.retain(|_, revisions| !revisions.is_empty());
    }
    // In order of id, so that neighbours in the store are written together.
    rows.sort_unstable_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    Ok(Prepared {
        rows,
        unopened: unopened.into_values().collect(),
        read,
        refused,
    })
}

/// Writes a batch, on a task of its own.
async fn write<R: Rebuilt>(
    target: &Arc<R>,
    batch: Prepared<R::Row>,
    order: Order,
    shutdown: &Shutdown,
) -> Result<Written, RebuildError> {
    let (target, process) = (Arc::clone(target), shutdown);
    let shutdown = process.clone();
    let writing = AbortOnDropHandle::new(process.spawn(async move {
        let mut rows = batch.rows;
        if order.distrusts && target.keeps() == Keeps::Newest {
            let ids: Vec<String> = rows.iter().map(|(id, _, _)| id.clone()).collect();
            let stored = until_done(target.as_ref(), &shutdown, || target.revisions(&ids)).await?;
            rows.retain(|(id, revision, _)| stored.get(id).is_none_or(|held| held < revision));
        }
        let rows: Vec<R::Row> = rows.into_iter().map(|(_, _, row)| row).collect();
        let rows = rows.as_slice();
        let write = || target.write(rows, order.entries);
        let differing = until_done(target.as_ref(), &shutdown, write).await?;
        let shut = batch.unopened.as_slice();
        let waiting =
            until_done(target.as_ref(), &shutdown, || keep(target.as_ref(), shut)).await?;
        Ok(Written {
            read: batch.read,
            refused: batch.refused,
            written: rows.len() as u64,
            differing,
            waiting,
        })
    }));
    writing.await.map_err(|error| {
        RebuildError::BrokenOff(StoreError::Away(format!("a write was broken off: {error}")))
    })?
}

/// Keeps events that do not open until they do, unless what they tell is stored. Returns how many wait.
async fn keep<R: Rebuilt>(target: &R, shut: &[Shut]) -> Result<u64, StoreError> {
    if shut.is_empty() {
        return Ok(0);
    }
    let ids: Vec<String> = shut.iter().map(|shut| shut.id.clone()).collect();
    let stored = target.revisions(&ids).await?;
    let news = |shut: &&Shut| {
        stored
            .get(&shut.id)
            .is_none_or(|held| *held < shut.revision)
    };
    let kept: Vec<(Message, Unopened)> = shut
        .iter()
        .filter(news)
        .map(|shut| (shut.message.clone(), shut.unopened.clone()))
        .collect();
    let count = kept.len() as u64;
    match target.waiting() {
        Some(waiting) => waiting.keep(kept).await?,
        None => {
            for (message, unopened) in kept {
                tracing::error!(target_name = target.name(), position = ?message.position, %unopened, "an event does not open");
            }
        }
    }
    Ok(count)
}

#[async_trait]
impl<R: Rebuilt> Takes for R {
    async fn take(&self, messages: &[Message]) -> Result<Vec<Option<Unopened>>, StoreError> {
        let heard: Vec<Option<Heard<R::Told>>> =
            messages.iter().map(|message| self.hear(message)).collect();
        let told: Vec<&R::Told> = heard.iter().flatten().map(|heard| &heard.told).collect();
        let keys = self.keys(&told).await?;
        drop(told);
        let mut newest: HashMap<String, (i64, R::Row)> = HashMap::new();
        let mut answers = Vec::with_capacity(messages.len());
        for (heard, message) in heard.into_iter().zip(messages) {
            let Some(Heard { id, revision, told }) = heard else {
                answers.push(Some(Unopened {
                    subject: message.key.clone().unwrap_or_default(),
                    reason: "it cannot be read".to_owned(),
                }));
                continue;
            };
            match self.open(told, &keys) {
                Ok(row) => {
                    if newest.get(&id).is_none_or(|(known, _)| *known < revision) {
                        newest.insert(id, (revision, row));
                    }
                    answers.push(None);
                }
                Err(unopened) => answers.push(Some(unopened)),
            }
        }
        let mut rows: Vec<(String, R::Row)> =
            newest.into_iter().map(|(id, (_, row))| (id, row)).collect();
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let rows: Vec<R::Row> = rows.into_iter().map(|(_, row)| row).collect();
        self.write(&rows, Entries::Left).await?;
        Ok(answers)
    }
}

/// Opens what was heard; each with its id and revision.
async fn open<R: Rebuilt>(
    target: &Arc<R>,
    heard: Vec<Heard<R::Told>>,
    shutdown: &Shutdown,
) -> Result<Vec<(String, i64, Result<R::Row, Unopened>)>, RebuildError> {
    let told: Vec<&R::Told> = heard.iter().map(|heard| &heard.told).collect();
    let keys = until_done(target.as_ref(), shutdown, || target.keys(&told)).await?;
    drop(told);
    let opening = Arc::clone(target);
    on_all_cores(heard, move |heard| {
        let row = opening.open(heard.told, &keys);
        (heard.id, heard.revision, row)
    })
    .await
    .map_err(RebuildError::BrokenOff)
}

/// Tries until it is done, with growing pauses; not when the store holds what it should not.
async fn until_done<R: Rebuilt, T, F>(
    target: &R,
    shutdown: &Shutdown,
    attempt: impl Fn() -> F,
) -> Result<T, RebuildError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let attempt = async || match attempt().await {
        // It will not read better the next time.
        Err(error @ StoreError::Corrupt(_)) => Ok(Err(error)),
        Ok(done) => Ok(Ok(done)),
        Err(error) => Err(error),
    };
    let done = shutdown.retry(BACKOFF, attempt, |error: &StoreError, pause| {
        tracing::warn!(target_name = target.name(), %error, ?pause, "the store is away; trying again");
    });
    done.await
        .ok_or(RebuildError::Stopping)?
        .map_err(RebuildError::BrokenOff)
}
