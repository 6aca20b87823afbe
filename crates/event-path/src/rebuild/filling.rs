//! Brings a store up to date with the log before it accepts commands. A new, empty store is filled from the beginning.
//! A store that was restored from a backup reads what was published since.
//!
//! A store finds out whether it is behind by comparing offsets: the last ones that it remembers reading with the ends
//! of its topics. The committed offsets of its consumer groups are no help, because they belong to the store that was
//! there before the restore. After a crash a start reads only the last moments again, and after an orderly stop
//! nothing.
//!
//! The part of the log that a store does not remember is read as in a rebuild: only verified records count, and only
//! revisions newer than the stored ones are written. Nothing is read from a log that is not the one that the store was
//! made from.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use super::{Order, RebuildError, Target, Unread, retry::BACKOFF};
use crate::{
    commands::Gate,
    log::Log,
    log_memory::{LogWatch, Remembered, remembered},
    store::{Registry, StoreError},
};
use tandem_runtime::shutdown::Shutdown;

/// How long a store that was filled before waits, for two things. The first is the log: after this time the store
/// accepts commands without knowing whether it is behind. The second is data from other services' topics. So a service
/// that starts while Kafka is down, or after a long absence, still serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// The reason that the gate gives while a store is compared with the log.
const COMPARED: &str =
    "the store is compared with the log, and takes no commands until it has what the log has";

/// What to do if a new store is to be filled from a log that has lost its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncatedLog {
    /// The store does not open. An aggregate that is missing in the log may have existed, and could be created a second
    /// time.
    Refused,
    /// The store takes the remaining part for the whole log.
    Accepted,
}

/// Fills a new, empty store from the log, then opens the gate. A store that was filled before is first brought up to
/// date, if the log holds more than the store remembers reading: see [`Unread`].
///
/// Commands are carried out on the first target. Targets that are made from another topic than that one's are also
/// brought up to date. If that takes long, the gate opens before it is done. Until everything is done the watch notes
/// no progress, so that a start that is interrupted begins again at the same place.
///
/// Runs in the background and retries until it is done or the service stops. Until then the gate gives the reason why
/// it is closed.
pub fn fill_new_store(
    registry: Arc<dyn Registry>,
    targets: Vec<Arc<dyn Target>>,
    log: Arc<dyn Log>,
    gate: Gate,
    watch: &LogWatch,
    truncated: TruncatedLog,
    shutdown: &Shutdown,
) {
    watch.hold();
    let filling = Filling {
        registry,
        targets,
        log,
        gate,
        watch: watch.clone(),
        truncated,
        shutdown: shutdown.clone(),
    };
    shutdown.spawn(async move {
        let _ = filling.run().await;
    });
}

/// The name under which a store remembers that it was filled.
const FILLED: &str = "filled";
/// The value of that entry if the store also remembers, for each partition, what it has read since the first message.
/// Older versions wrote another value.
const REMEMBERS_ALL: &str = "and remembers what it reads";

/// Remembers that a store holds what the log holds, so that it is not filled again.
///
/// # Errors
/// When the store does not answer.
pub async fn mark_filled(registry: &dyn Registry) -> Result<(), StoreError> {
    registry.remember(FILLED, REMEMBERS_ALL).await.map(drop)
}

/// Whether a store remembers that it was filled.
///
/// # Errors
/// When the store does not answer.
pub async fn is_filled(registry: &dyn Registry) -> Result<bool, StoreError> {
    Ok(registry.recall(FILLED).await?.is_some())
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The log has lost its beginning, and what was there is unknown.
    #[error(
        "{topic} begins at offset {offset} of partition {partition}, so what was told before is gone: whoever was told of there alone is not known here, could be created a second time, and would be missing for good. Bring the whole log back, or start with --accept-truncated-log to take what is left for all there ever was"
    )]
    Truncated {
        topic: &'static str,
        partition: i32,
        offset: i64,
    },
}

/// A target that is behind the log.
struct Behind {
    target: Arc<dyn Target>,
    unread: Unread,
}

/// The work of bringing a store up to date with the log.
struct Filling {
    registry: Arc<dyn Registry>,
    targets: Vec<Arc<dyn Target>>,
    log: Arc<dyn Log>,
    gate: Gate,
    watch: LogWatch,
    truncated: TruncatedLog,
    shutdown: Shutdown,
}

impl Filling {
    /// Returns `None` when the service stops before it is done.
    async fn run(&self) -> Option<()> {
        let what = "whether the store was filled cannot be told";
        if self.retried(what, || self.was_filled()).await? {
            self.bring_up_to_date().await?;
        } else {
            let what = "the new store could not be filled from the log";
            self.retried(what, || self.fill()).await?;
        }
        self.gate.let_through();
        self.watch.release();
        Some(())
    }

    /// Retries until it succeeds, with growing pauses. Logs `what` as the problem. `None` when the service stops
    /// before.
    async fn retried<T, F>(&self, what: &str, attempt: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, FillError>>,
    {
        let failed = |error: &FillError, pause: Duration| {
            if !self.shutdown.is_requested() {
                self.gate.close_because(error.to_string());
                tracing::warn!(%error, ?pause, "{what}; trying again");
            }
        };
        self.shutdown.retry(BACKOFF, attempt, failed).await
    }

    async fn was_filled(&self) -> Result<bool, FillError> {
        for target in &self.targets {
            target.recall_waiting().await?;
        }
        Ok(is_filled(self.registry.as_ref()).await?)
    }

    /// Waits until the log is known to be the one of our system.
    async fn log_is_ready(&self) -> Result<(), FillError> {
        tokio::select! {
            biased;
            () = self.shutdown.requested() => Err(RebuildError::Stopping.into()),
            _ = self.log.ready() => Ok(()),
        }
    }

    async fn bring_up_to_date(&self) -> Option<()> {
        self.gate.close_because(COMPARED.to_owned());
        let what = "whether the log holds more than the store has read cannot be told";
        let mut looking = pin!(self.retried(what, || self.look()));
        let clock = self.shutdown.clock();
        let behind = match clock.timeout(PATIENCE, looking.as_mut()).await {
            Ok(behind) => behind?,
            Err(_) => {
                tracing::warn!(
                    waited = ?PATIENCE,
                    "the log does not answer: commands are taken without knowing whether the log holds more than this store. If the store was put back from a copy, keep callers out until the log answers"
                );
                self.gate.let_through();
                looking.await?
            }
        };
        let (own, others): (Vec<_>, Vec<_>) =
            behind.into_iter().partition(|behind| self.is_own(behind));
        let what = "the store could not be brought up to date from the log";
        let is_new = own.is_empty();
        if !is_new {
            let mut seen = Some(own);
            self.retried(what, || self.catch_up(true, seen.take()))
                .await?;
        }
        if others.is_empty() {
            return Some(());
        }
        // If the own topic was read first, that took time in which another topic may have been created again. So look
        // again.
        let mut seen = is_new.then_some(others);
        let mut catching_up = pin!(self.retried(what, || self.catch_up(false, seen.take())));
        match clock.timeout(PATIENCE, catching_up.as_mut()).await {
            Ok(done) => done,
            Err(_) => {
                self.gate.let_through();
                catching_up.await
            }
        }
    }

    /// Whether the target is made from the topic to which this store's commands publish.
    fn is_own(&self, behind: &Behind) -> bool {
        let own = self.targets.first().map(|target| target.log());
        own == Some(behind.target.log())
    }

    /// What the log holds that the store does not remember reading.
    async fn look(&self) -> Result<Vec<Behind>, FillError> {
        let registry = self.registry.as_ref();
        let remembers_all = registry.recall(FILLED).await?.as_deref() == Some(REMEMBERS_ALL);
        let mut known: BTreeMap<&'static str, BTreeMap<i32, Remembered>> = BTreeMap::new();
        for target in &self.targets {
            let topic = target.log();
            known.insert(topic, remembered(registry, topic).await?);
        }
        if !remembers_all && known.values().all(BTreeMap::is_empty) {
            // A store of an older version, which does not know how far it has read.
            return Ok(Vec::new());
        }
        self.log_is_ready().await?;
        let mut unread: BTreeMap<&'static str, Unread> = BTreeMap::new();
        for (topic, remembered) in known {
            let state = self.log.topic(topic).await.map_err(RebuildError::from)?;
            let part = Unread::of(&remembered, &state.ends, remembers_all);
            if !part.is_empty() {
                unread.insert(topic, part);
            }
        }
        if unread.is_empty() {
            return Ok(Vec::new());
        }
        self.watch.look_closely().await?;
        unread.retain(|topic, _| {
            let is_trusted = self.watch.trusts(topic);
            if !is_trusted {
                tracing::warn!(
                    topic,
                    "whether this store is behind the log cannot be told, because the log is not the one that it was made from; if the log is right, `tandem rebuild` reads it all"
                );
            }
            is_trusted
        });
        let behind = self.targets.iter().filter_map(|target| {
            let unread = unread.get(target.log())?.clone();
            let target = Arc::clone(target);
            Some(Behind { target, unread })
        });
        Ok(behind.collect())
    }

    /// Reads the unread part of the own topic, or of the others. The first try reads what was `seen` just now. Each
    /// further try looks again, because a topic may be created again in the meantime.
    async fn catch_up(&self, own: bool, seen: Option<Vec<Behind>>) -> Result<(), FillError> {
        let behind = match seen {
            Some(seen) => seen,
            None => self.look().await?,
        };
        let behind = behind.into_iter();
        for Behind { target, unread } in behind.filter(|behind| self.is_own(behind) == own) {
            let done = target.catch_up(&self.log, unread, &self.shutdown).await?;
            tracing::info!(
                target_name = done.target,
                read = done.read,
                written = done.written,
                refused = done.refused,
                waiting = done.waiting,
                seconds = done.seconds,
                "the log held more than this store remembered to have read, and the store has it now"
            );
        }
        Ok(())
    }

    async fn fill(&self) -> Result<(), FillError> {
        self.log_is_ready().await?;
        for target in &self.targets {
            let topic = target.log();
            let state = self.log.topic(topic).await.map_err(RebuildError::from)?;
            let begun_late = state.ends.iter().find(|(_, (low, _))| *low > 0);
            let Some((&partition, &(offset, _))) = begun_late else {
                continue;
            };
            if self.truncated == TruncatedLog::Refused {
                return Err(FillError::Truncated {
                    topic,
                    partition,
                    offset,
                });
            }
            tracing::warn!(
                topic,
                partition,
                offset,
                "the log has lost its beginning; what is left is taken for all there ever was, as was ordered"
            );
        }
        for target in &self.targets {
            let outcome = Arc::clone(target)
                .rebuild(&self.log, Order::default(), &self.shutdown, &mut |_| {})
                .await?;
            let done = outcome.progress;
            if done.read > 0 {
                tracing::info!(
                    target_name = done.target,
                    read = done.read,
                    written = done.written,
                    seconds = done.seconds,
                    "a new store was filled from the log"
                );
            }
        }
        Ok(mark_filled(self.registry.as_ref()).await?)
    }
}
