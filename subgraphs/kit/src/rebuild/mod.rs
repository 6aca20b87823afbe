//! Rebuilds a store from the log: every event from the beginning, the newest revision of each aggregate written once.
//!
//! What is rebuilt replaces what is stored aggregate by aggregate, each in one step and never by an older revision. So a
//! reader never sees less than before, commands go on meanwhile on every instance, an interruption at any point leaves
//! nothing half-built, and starting again is always right. `docs/decisions/0003-rebuild-in-place.md` says why this and not a swap.
//!
//! What the log has not is taken out afterwards: unknown ids are removed, revisions ahead of the log are set back. An event
//! is cleared from the store after Kafka has it, so what is stored with nothing pending is in the log *by then*. Hence the order:
//! look at what is stored, then read on to the end of the log, and only then judge. What was written since the look
//! is left alone, by the store itself. What was kept out meanwhile by something that was then taken out is read again.
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
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, future::ready};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    kafka::{connection::Kafka, message::Message, tail::TailError},
    store::{Settled, StoreError},
};

pub use aggregates::{ReadStates, RebuildAggregates};
pub use cores::on_all_cores;
pub use filling::{fill_new_store, mark_filled};
pub use logged::Keeps;
use logged::Logged;
use reading::{Ended, Ends, Reading, SILENCE};
pub use trail::RebuildTrail;

/// So many messages behind the end, after two rounds, is the end.
const NEAR: u64 = 1_000;
/// Batches being written at once.
const WRITES: usize = 2;
/// Stored rows looked at, removed and set back at once.
const PAGE: usize = 1_000;
/// More than so many rows that the log has not, and more than half of all, speak against the log and not against the store.
const PLAUSIBLE: usize = 10;
/// First and longest pause while the store is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    /// What was stored and is not in the log: removed.
    #[serde(default)]
    pub removed: u64,
    /// What was stored with other content than the log has, seen by a newer revision or in an entry: made as the log has it.
    #[serde(default)]
    pub set_back: u64,
    /// Why what is not in the log was left alone, if it was.
    #[serde(default)]
    pub left_alone: Option<String>,
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
    Log(#[from] TailError),
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
    /// Most of what is stored is not in the log: rather the log is not what it was.
    #[error(
        "{missed} of {stored} stored are not in {topic}: it looks as if the topic had been lost or made anew, so nothing was removed. To have only what the log has, start on an empty database"
    )]
    Implausible {
        /// Which topic.
        topic: &'static str,
        /// How many are not in the log.
        missed: usize,
        /// Of how many.
        stored: usize,
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

    /// The row, `None` if it does not open. Pure: it asks nobody.
    fn open(&self, told: Self::Told, keys: &Self::Keys) -> Option<Self::Row>;

    /// Writes rows, each id and revision at most once, in order of id. Returns how many were there with other content, if that is known.
    ///
    /// # Errors
    /// When the store is away: the same rows are given again.
    async fn write(&self, rows: &[Self::Row]) -> Result<u64, StoreError>;

    /// At most `limit` stored rows behind `after` of which nothing is pending, in order; none when there are no more.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError>;

    /// Removes rows, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError>;

    /// Puts rows in the place of newer ones, each only if that is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away: it is asked again.
    async fn set_back(&self, rows: &[(Settled, Self::Row)]) -> Result<u64, StoreError>;
}

/// What is done about stored rows that the log has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlogged {
    /// They are removed or set back.
    TakenOut,
    /// They are not looked for: the store is new.
    Ignored,
}

/// Something that can be rebuilt, whatever it is made of.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// What it is called, as progress shows it.
    fn name(&self) -> &'static str;

    /// Rebuilds it from the beginning of its topic to its end, and on to where the end has moved meanwhile.
    ///
    /// It holds in memory about 100 bytes for each aggregate, and up to five batches of messages in their stages. `tell` hears of
    /// every step.
    ///
    /// # Errors
    /// See [`RebuildError`].
    async fn rebuild(
        self: Arc<Self>,
        kafka: &Kafka,
        unlogged: Unlogged,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Progress, RebuildError>;
}

#[async_trait]
impl<R: Rebuilt> Target for R {
    fn name(&self) -> &'static str {
        Rebuilt::name(self)
    }

    async fn rebuild(
        self: Arc<Self>,
        kafka: &Kafka,
        unlogged: Unlogged,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Progress, RebuildError> {
        let told = Told {
            begun: Instant::now(),
            progress: Progress {
                target: Rebuilt::name(self.as_ref()).to_owned(),
                ..Progress::default()
            },
            tell,
        };
        let mut rebuild = Rebuild {
            reading: Reading::new(kafka, self.topic()),
            kafka,
            logged: Logged::default(),
            target: self,
            stop,
            told,
        };
        rebuild.read_to_the_moving_end().await?;
        if unlogged == Unlogged::TakenOut {
            rebuild.take_out().await?;
        }
        rebuild.told.progress.done = true;
        rebuild.told.step();
        Ok(rebuild.told.progress)
    }
}

/// The progress, and who hears of it.
struct Told<'a> {
    begun: Instant,
    progress: Progress,
    tell: &'a mut (dyn FnMut(Progress) + Send + Sync),
}

impl Told<'_> {
    fn step(&mut self) {
        self.progress.seconds = self.begun.elapsed().as_secs_f64();
        (self.tell)(self.progress.clone());
    }
}

/// Rows ready to be written, and what they came of.
struct Prepared<Row> {
    rows: Vec<Row>,
    read: u64,
    refused: u64,
}

/// What became of a batch.
struct Written {
    read: u64,
    refused: u64,
    written: u64,
    replaced: u64,
}

/// A rebuild that is under way.
struct Rebuild<'a, R: Rebuilt> {
    target: Arc<R>,
    kafka: &'a Kafka,
    reading: Reading,
    logged: Logged,
    stop: &'a CancellationToken,
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
                    self.told.progress.left_alone = Some(format!(
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
            stop,
            told,
            ..
        } = self;
        told.progress.total = told.progress.read + reading.left(ends);
        told.step();
        let mut ahead = reading.start(ends)?;
        let (prepared_in, prepared) = mpsc::channel::<Prepared<R::Row>>(1);
        let preparing = async {
            while let Some(messages) = ahead.batches.recv().await {
                let batch = prepare(target, logged, messages, stop).await?;
                if prepared_in.send(batch).await.is_err() {
                    break;
                }
            }
            drop(prepared_in);
            Ok::<_, RebuildError>(())
        };
        // While one batch is being committed, the next is being encoded. In which order they are written does not matter.
        let written = ReceiverStream::new(prepared)
            .map(|batch| write(target, batch, stop))
            .buffered(WRITES);
        let writing = written.try_for_each(|batch| {
            let progress = &mut told.progress;
            progress.read += batch.read;
            progress.total = progress.total.max(progress.read);
            progress.written += batch.written;
            progress.refused += batch.refused;
            progress.set_back += batch.replaced;
            told.step();
            ready(Ok(()))
        });
        tokio::select! {
            () = stop.cancelled() => return Err(RebuildError::Stopping),
            done = async { tokio::try_join!(preparing, writing) } => done?,
        };
        self.finish(ahead).await
    }

    async fn finish(&mut self, ahead: reading::Ahead) -> Result<(), RebuildError> {
        let ended = self.reading.finish(ahead).await;
        ended.map_err(|ended| self.early(&ended))
    }

    fn early(&self, ended: &Ended) -> RebuildError {
        match ended {
            Ended::Unwanted => RebuildError::Stopping,
            Ended::Silent => RebuildError::Silent {
                topic: self.target.topic(),
                read: self.told.progress.read,
                total: self.told.progress.total,
            },
        }
    }

    /// Removes and sets back what is stored and not in the log.
    async fn take_out(&mut self) -> Result<(), RebuildError> {
        if let Some(reason) = &self.told.progress.left_alone {
            tracing::warn!(target_name = self.target.name(), %reason, "what is not in the log is left alone");
            return Ok(());
        }
        let (stored, mut missed) = self.look().await?;
        if missed.is_empty() {
            return Ok(());
        }
        // What was published before the look is known after this.
        self.read_to_the_end_as_of_now().await?;
        let keeps = self.target.keeps();
        missed.retain(|seen| self.logged.misses(seen, keeps));
        if missed.is_empty() {
            return Ok(());
        }
        if missed.len() > PLAUSIBLE && missed.len() * 2 > stored {
            return Err(RebuildError::Implausible {
                topic: self.target.topic(),
                missed: missed.len(),
                stored,
            });
        }
        let (ahead, unknown): (Vec<_>, Vec<_>) = missed
            .into_iter()
            .partition(|seen| keeps == Keeps::Newest && self.logged.knows(&seen.id));
        for seen in unknown.iter().chain(&ahead) {
            tracing::warn!(
                target_name = self.target.name(),
                id = seen.id,
                revision = seen.revision,
                "stored, and not in the log"
            );
        }
        let target = self.target.as_ref();
        for some in unknown.chunks(PAGE) {
            let removed = until_done(target, self.stop, || target.remove(some)).await?;
            self.told.progress.removed += removed;
            self.told.step();
        }
        self.set_back(ahead).await?;
        // What these kept out meanwhile, because they were in its place or newer, is in the log.
        self.read_to_the_end_as_of_now().await
    }

    /// Looks at all that is stored with nothing pending: how many, and those that the log has not shown so far.
    async fn look(&self) -> Result<(usize, Vec<Settled>), RebuildError> {
        let target = self.target.as_ref();
        let keeps = target.keeps();
        let mut stored = 0;
        let mut missed = Vec::new();
        let mut last: Option<Settled> = None;
        loop {
            let after = last.as_ref();
            let page = until_done(target, self.stop, || target.settled(after, PAGE)).await?;
            stored += page.len();
            missed.extend(
                page.iter()
                    .filter(|seen| self.logged.misses(seen, keeps))
                    .cloned(),
            );
            match page.into_iter().next_back() {
                Some(seen) => last = Some(seen),
                None => return Ok((stored, missed)),
            }
        }
    }

    /// Puts what the log tells last in the place of what is ahead of it.
    async fn set_back(&mut self, ahead: Vec<Settled>) -> Result<(), RebuildError> {
        if ahead.is_empty() {
            return Ok(());
        }
        let mut newest = self.newest_of(&ahead).await?;
        let rows: Vec<(Settled, R::Row)> = ahead
            .into_iter()
            .filter_map(|seen| {
                let (revision, row) = newest.remove(&seen.id)?;
                (revision < seen.revision).then_some((seen, row))
            })
            .collect();
        let target = self.target.as_ref();
        for some in rows.chunks(PAGE) {
            let set_back = until_done(target, self.stop, || target.set_back(some)).await?;
            self.told.progress.set_back += set_back;
            self.told.step();
        }
        Ok(())
    }

    /// Reads the log once more, for the newest revision of a few.
    async fn newest_of(
        &self,
        few: &[Settled],
    ) -> Result<HashMap<String, (i64, R::Row)>, RebuildError> {
        let ids: HashSet<&str> = few.iter().map(|seen| seen.id.as_str()).collect();
        let mut newest: HashMap<String, Heard<R::Told>> = HashMap::with_capacity(ids.len());
        let mut reading = Reading::new(self.kafka, self.target.topic());
        let ends = self.reading.reached(&self.reading.ends().await?);
        let mut ahead = reading.start(&ends)?;
        loop {
            let messages = tokio::select! {
                () = self.stop.cancelled() => return Err(RebuildError::Stopping),
                messages = ahead.batches.recv() => messages,
            };
            let Some(messages) = messages else { break };
            let theirs = messages
                .iter()
                .filter(|message| names_of(message).any(|name| ids.contains(name)));
            for heard in theirs.filter_map(|message| self.target.hear(message)) {
                let known = newest.get(&heard.id).map_or(0, |known| known.revision);
                if heard.revision > known {
                    newest.insert(heard.id.clone(), heard);
                }
            }
        }
        reading
            .finish(ahead)
            .await
            .map_err(|ended| self.early(&ended))?;
        let heard: Vec<Heard<R::Told>> = newest.into_values().collect();
        let opened = open(&self.target, heard, self.stop).await?;
        Ok(opened
            .into_iter()
            .filter_map(|(id, revision, row)| Some((id, (revision, row?))))
            .collect())
    }
}

/// Whom a message names outside of its body.
fn names_of(message: &Message) -> impl Iterator<Item = &str> {
    message
        .key
        .as_deref()
        .into_iter()
        .chain(message.header("ce_subject"))
}

/// Makes rows of messages: of each id those revisions that are kept.
async fn prepare<R: Rebuilt>(
    target: &Arc<R>,
    logged: &mut Logged,
    messages: Vec<Message>,
    stop: &CancellationToken,
) -> Result<Prepared<R::Row>, RebuildError> {
    let read = messages.len() as u64;
    let mut refused = 0;
    let hearing = Arc::clone(target);
    let heard = on_all_cores(messages, move |message| {
        hearing
            .hear(&message)
            .ok_or_else(|| names_of(&message).map(str::to_owned).collect::<Vec<_>>())
    })
    .await
    .map_err(RebuildError::BrokenOff)?;
    // Of each id the revisions, the one to be written last.
    let mut by_id: HashMap<String, Vec<Heard<R::Told>>> = HashMap::new();
    for heard in heard {
        match heard {
            Ok(heard) => {
                let is_first = logged.note(&heard.id, heard.revision);
                if is_first || target.keeps() == Keeps::Newest {
                    let revisions = by_id.entry(heard.id.clone()).or_default();
                    let place = revisions.partition_point(|one| one.revision < heard.revision);
                    revisions.insert(place, heard);
                }
            }
            Err(names) => {
                refused += 1;
                names.iter().for_each(|name| logged.doubt(name));
            }
        }
    }
    let mut rows: Vec<(String, i64, R::Row)> = Vec::with_capacity(by_id.len());
    while !by_id.is_empty() {
        let next: Vec<Heard<R::Told>> = match target.keeps() {
            Keeps::Each => by_id.drain().flat_map(|(_, revisions)| revisions).collect(),
            Keeps::Newest => by_id.values_mut().filter_map(Vec::pop).collect(),
        };
        for (id, revision, row) in open(target, next, stop).await? {
            if let Some(row) = row {
                by_id.remove(&id);
                rows.push((id, revision, row));
            } else {
                // The one before it may open.
                refused += 1;
            }
        }
        by_id.retain(|_, revisions| !revisions.is_empty());
    }
    // In order of id, so that neighbours in the store are written together.
    rows.sort_unstable_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    Ok(Prepared {
        rows: rows.into_iter().map(|(_, _, row)| row).collect(),
        read,
        refused,
    })
}

/// Writes a batch, on a task of its own.
async fn write<R: Rebuilt>(
    target: &Arc<R>,
    batch: Prepared<R::Row>,
    stop: &CancellationToken,
) -> Result<Written, RebuildError> {
    let (target, stop) = (Arc::clone(target), stop.clone());
    let writing = AbortOnDropHandle::new(tokio::spawn(async move {
        let rows = batch.rows.as_slice();
        let replaced = until_done(target.as_ref(), &stop, || target.write(rows)).await?;
        Ok(Written {
            read: batch.read,
            refused: batch.refused,
            written: rows.len() as u64,
            replaced,
        })
    }));
    writing.await.map_err(|error| {
        RebuildError::BrokenOff(StoreError::Away(format!("a write was broken off: {error}")))
    })?
}

/// Opens what was heard; each with its id and revision.
async fn open<R: Rebuilt>(
    target: &Arc<R>,
    heard: Vec<Heard<R::Told>>,
    stop: &CancellationToken,
) -> Result<Vec<(String, i64, Option<R::Row>)>, RebuildError> {
    let told: Vec<&R::Told> = heard.iter().map(|heard| &heard.told).collect();
    let keys = until_done(target.as_ref(), stop, || target.keys(&told)).await?;
    drop(told);
    let opening = Arc::clone(target);
    on_all_cores(heard, move |heard| {
        let row = opening.open(heard.told, &keys);
        (heard.id, heard.revision, row)
    })
    .await
    .map_err(RebuildError::BrokenOff)
}

/// Tries until it is done, with growing pauses.
async fn until_done<R: Rebuilt, T, F>(
    target: &R,
    stop: &CancellationToken,
    attempt: impl Fn() -> F,
) -> Result<T, RebuildError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => {
                tracing::warn!(target_name = target.name(), %error, ?pause, "the store is away; trying again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Err(RebuildError::Stopping),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
