//! The simulated store. A failover loses writes that no majority has, a deposed primary may not know that it is
//! deposed, and answers may be lost.

pub mod db;
mod deposed;
mod ports;
mod replica;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tandem_event_path::store::{StoreError, WriteEpoch};
use tandem_model::aggregate::Aggregate;
use tokio::sync::oneshot;

use crate::{
    chance::draw,
    faults::{Fault, Faults},
    world::World,
};
use db::Db;
use deposed::{Connection, Deposed, Deposition};

/// The probabilities of faults on the way, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// A request does not arrive.
    pub lost_request: u64,
    /// A request is carried out, but the caller gets no answer.
    pub lost_answer: u64,
    /// A request takes seconds.
    pub slow: u64,
}

/// How a database loses and shows writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A replica set. Writes on a majority stay, and most readers see only those.
    Replicated,
    /// A file of one process. Readers see everything at once.
    Embedded,
}

type Job<A> = Arc<dyn Fn(&mut Db<A>) + Send + Sync>;

struct State<A> {
    /// The data of the primary.
    primary: Db<A>,
    /// The data of a majority.
    majority: Db<A>,
    /// The writes that the primary has and the majority does not, in order.
    ahead: VecDeque<(u64, Job<A>)>,
    written: u64,
    epoch: u64,
    away_until: u64,
    /// The primary that was deposed last, while it does not know it.
    deposed: Option<Deposed<A>>,
    /// All primaries that were deposed without knowing it.
    depositions: Vec<Deposition>,
    odds: Odds,
}

/// The primary that answers a request.
enum Answering {
    /// The primary.
    Primary,
    /// A deposed primary that does not know it.
    Deposed,
}

impl<A> State<A> {
    /// The primary that answers a request that arrives now over this connection, if there is one.
    fn answering(&self, connection: Connection, now: u64) -> Option<Answering> {
        let holds = |it: &Deposed<A>| it.deposition.holds(connection, now);
        if self.deposed.as_ref().is_some_and(holds) {
            return Some(Answering::Deposed);
        }
        (now >= self.away_until).then_some(Answering::Primary)
    }

    /// Makes the deposed primary notice that it is deposed.
    fn step_down(&mut self, now: u64) {
        if self.deposed.take().is_some()
            && let Some(last) = self.depositions.last_mut()
        {
            last.until = last.until.min(now.max(last.since));
        }
    }
}

struct Shared<A> {
    world: World,
    name: &'static str,
    kind: Kind,
    faults: Faults,
    state: Mutex<State<A>>,
}

/// The database of one service, reached over one connection. Clones share both.
pub struct Database<A>(Arc<Shared<A>>, Connection);

impl<A> Clone for Database<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), self.1)
    }
}

impl<A> fmt::Debug for Database<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.name)
    }
}

fn empty<A>(faults: &Faults) -> Db<A> {
    Db {
        faults: faults.clone(),
        ..Db::default()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn unknown() -> StoreError {
    StoreError::Unavailable("it did not answer in time".to_owned())
}

impl<A: Aggregate> Database<A> {
    /// Creates an empty database.
    #[must_use]
    pub fn new(world: &World, name: &'static str, kind: Kind, faults: &Faults) -> Self {
        let shared = Shared {
            world: world.clone(),
            name,
            kind,
            faults: faults.clone(),
            state: Mutex::new(State {
                primary: empty(faults),
                majority: empty(faults),
                ahead: VecDeque::new(),
                written: 0,
                epoch: 0,
                away_until: 0,
                deposed: None,
                depositions: Vec::new(),
                odds: Odds::default(),
            }),
        };
        Self(Arc::new(shared), Connection::default())
    }

    /// The same database over the connection with this number, which belongs to one process.
    #[must_use]
    pub fn connected(&self, number: u64) -> Self {
        Self(Arc::clone(&self.0), Connection(number))
    }

    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the probabilities of faults from now on.
    pub fn set_odds(&self, odds: Odds) {
        self.state().odds = odds;
    }

    /// From now on, an aggregate with this many pending events has no room for one more.
    pub fn refuse_beyond(&self, most_pending: usize) {
        let mut state = self.state();
        state.primary.most_pending = Some(most_pending);
        state.majority.most_pending = Some(most_pending);
    }

    /// Reads the data of a majority.
    pub fn look<T>(&self, look: impl FnOnce(&Db<A>) -> T) -> T {
        look(&self.state().majority)
    }

    /// Whether the database is a file of one process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.0.kind == Kind::Embedded
    }

    /// Another primary takes over, or the process with the file crashes. Writes that no majority has are lost. Nobody
    /// answers for a time.
    pub fn fail_over(&self, away: Duration) {
        self.replace_primary(away, None);
    }

    /// Cuts the primary off. After a time another one takes over. For `lingers`, the old one does not know it and
    /// answers clients that reach only it. For a file of one process, this is only a crash.
    pub fn depose(&self, away: Duration, lingers: Duration) {
        self.replace_primary(away, (!self.is_embedded()).then_some(lingers));
    }

    fn replace_primary(&self, away: Duration, lingers: Option<Duration>) {
        let now = self.0.world.elapsed();
        let mut state = self.state();
        state.step_down(now);
        if let Some(lingers) = lingers {
            let deposition = Deposition {
                epoch: state.epoch,
                since: now,
                until: now + nanoseconds(lingers),
            };
            state.depositions.push(deposition);
            state.deposed = Some(Deposed {
                deposition,
                primary: state.primary.clone(),
                majority: state.majority.clone(),
                is_ahead: !state.ahead.is_empty(),
            });
        }
        // Some writes may have reached a majority without the primary knowing it.
        let held = draw(|chance| chance.below(state.ahead.len() as u64 + 1));
        for _ in 0..held {
            if let Some((_, job)) = state.ahead.pop_front() {
                job(&mut state.majority);
            }
        }
        let lost = state.ahead.len();
        state.ahead.clear();
        state.primary = state.majority.clone();
        state.epoch += 1;
        state.away_until = now + nanoseconds(away);
        drop(state);
        let name = self.0.name;
        self.0
            .world
            .note(|| format!("store {name} fails over, {held} held, {lost} lost, the old primary stays {lingers:?}"));
    }

    /// When the primary was cut off that answered over this connection at any time since `time`, if it was a deposed
    /// one.
    #[must_use]
    pub fn cut_off_since(&self, time: u64) -> Option<u64> {
        let state = self.state();
        let depositions = state.depositions.iter();
        depositions
            .filter(|it| it.held_since(self.1, time))
            .map(|it| it.since)
            .min()
    }

    /// Makes the database unavailable for a time.
    pub fn go_away(&self, time: Duration) {
        let now = self.0.world.elapsed();
        let mut state = self.state();
        state.step_down(now);
        state.away_until = now + nanoseconds(time);
    }

    /// Makes it available again, with one primary.
    pub fn come_back(&self) {
        let now = self.0.world.elapsed();
        let mut state = self.state();
        state.step_down(now);
        state.away_until = 0;
    }

    /// The primary that accepts a write that arrives now, if there is one.
    fn answering(&self) -> Option<Answering> {
        let (state, now) = (self.state(), self.0.world.elapsed());
        match state.answering(self.1, now) {
            // The planted fault: a decision from the old primary's data reaches the new one.
            Some(Answering::Deposed) if self.0.faults.has(Fault::DeposedStateTrusted) => {
                (now >= state.away_until).then_some(Answering::Primary)
            }
            answering => answering,
        }
    }

    /// Replicates the primary's writes to a majority, up to this one, if the epoch is still the same. Returns whether
    /// it is.
    fn replicate(&self, number: u64, epoch: u64) -> bool {
        let mut state = self.state();
        if state.epoch != epoch {
            return false;
        }
        while state.ahead.front().is_some_and(|(it, _)| *it <= number) {
            if let Some((_, job)) = state.ahead.pop_front() {
                job(&mut state.majority);
            }
        }
        true
    }

    /// Applies a job on the primary. Returns its result, its number and its epoch.
    fn apply<R: 'static>(
        &self,
        job: impl Fn(&mut Db<A>) -> R + Send + Sync + 'static,
    ) -> (R, u64, u64) {
        let mut state = self.state();
        let result = job(&mut state.primary);
        state.written += 1;
        let (number, epoch) = (state.written, state.epoch);
        let again: Job<A> = Arc::new(move |db| drop(job(db)));
        state.ahead.push_back((number, again));
        (result, number, epoch)
    }

    /// Applies a job on the deposed primary. Returns its result, its epoch, and the time after which it fails without a
    /// majority. That time is `None` if nothing must be awaited: the job changes nothing, and the primary knows that a
    /// majority has all its data.
    fn apply_deposed<R>(
        &self,
        job: impl Fn(&mut Db<A>) -> R,
    ) -> Option<(R, u64, Option<Duration>)> {
        let now = self.0.world.elapsed();
        let mut state = self.state();
        let deposed = state.deposed.as_mut()?;
        let before = deposed.primary.versions();
        let result = job(&mut deposed.primary);
        deposed.is_ahead |= deposed.primary.versions() != before;
        let gives_up = deposed.deposition.gives_up_after(now);
        let gives_up = deposed.is_ahead.then_some(gives_up);
        Some((result, deposed.deposition.epoch, gives_up))
    }

    /// Writes, and waits until a majority has the write.
    async fn write<R: Send + 'static>(
        &self,
        what: &'static str,
        job: impl Fn(&mut Db<A>) -> R + Send + Sync + 'static,
    ) -> Result<R, StoreError> {
        let (result, _) = self.write_in_epoch(what, job).await?;
        Ok(result)
    }

    /// Writes, and waits until a majority has the write. Also returns the epoch.
    async fn write_in_epoch<R: Send + 'static>(
        &self,
        what: &'static str,
        job: impl Fn(&mut Db<A>) -> R + Send + Sync + 'static,
    ) -> Result<(R, WriteEpoch), StoreError> {
        let (answer, told) = oneshot::channel();
        let (database, world) = (self.clone(), self.0.world.clone());
        let (arrives, is_told, delay) = self.fate();
        let held_after = self.delay(6);
        self.0.world.later(delay, move || {
            let answering = database.answering().filter(|_| arrives);
            let Some(answering) = answering else {
                let _ = answer.send(Err(unknown()));
                return;
            };
            if matches!(answering, Answering::Deposed) {
                let Some((result, epoch, gives_up)) = database.apply_deposed(job) else {
                    return;
                };
                let name = database.0.name;
                world.note(|| format!("store {name} {what} at a deposed primary, {gives_up:?}"));
                let acknowledges = database.0.faults.has(Fault::DeposedAcknowledges);
                let is_refused = gives_up.is_some() && !acknowledges;
                let told = if is_refused || !is_told {
                    Err(unknown())
                } else {
                    Ok((result, WriteEpoch(epoch.to_string())))
                };
                let after = gives_up.filter(|_| is_refused).unwrap_or(held_after);
                world.later(after, move || {
                    let _ = answer.send(told);
                });
                return;
            }
            let (result, number, epoch) = database.apply(job);
            if database.0.faults.has(Fault::AnsweredBeforeDurable) {
                let _ = answer.send(Ok((result, WriteEpoch(epoch.to_string()))));
                world.later(held_after * 100, move || {
                    database.replicate(number, epoch);
                });
                return;
            }
            world.later(held_after, move || {
                let stays = database.replicate(number, epoch);
                if !stays || !is_told {
                    let name = database.0.name;
                    let world = &database.0.world;
                    world.note(|| format!("store {name} {what} {stays} {is_told}"));
                }
                let told = if stays && is_told {
                    Ok((result, WriteEpoch(epoch.to_string())))
                } else {
                    Err(unknown())
                };
                let _ = answer.send(told);
            });
        });
        told.await.unwrap_or_else(|_| Err(unknown()))
    }

    /// Writes, and waits until readers see the write. Also returns the epoch.
    async fn write_early<R: Send + 'static>(
        &self,
        job: impl Fn(&mut Db<A>) -> R + Send + Sync + 'static,
    ) -> Result<(R, WriteEpoch), StoreError> {
        let (answer, told) = oneshot::channel();
        let (database, world) = (self.clone(), self.0.world.clone());
        let (arrives, is_told, delay) = self.fate();
        let held_after = self.delay(80);
        self.0.world.later(delay, move || {
            let answering = database.answering().filter(|_| arrives);
            let Some(answering) = answering else {
                let _ = answer.send(Err(unknown()));
                return;
            };
            let tell = |result, epoch: u64| {
                let told = (result, WriteEpoch(epoch.to_string()));
                let _ = answer.send(if is_told { Ok(told) } else { Err(unknown()) });
            };
            if matches!(answering, Answering::Deposed) {
                if let Some((result, epoch, _)) = database.apply_deposed(job) {
                    tell(result, epoch);
                }
                return;
            }
            let (result, number, epoch) = database.apply(job);
            tell(result, epoch);
            world.later(held_after, move || {
                database.replicate(number, epoch);
            });
        });
        told.await.unwrap_or_else(|_| Err(unknown()))
    }

    /// Reads the data of a majority.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Db<A>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let early = self.is_embedded();
        self.read_as(early, read).await
    }

    /// Reads the data of the primary.
    async fn read_early<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Db<A>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        self.read_as(true, read).await
    }

    async fn read_as<R: Send + 'static>(
        &self,
        early: bool,
        read: impl FnOnce(&Db<A>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let database = self.clone();
        let (arrives, is_told, delay) = self.fate();
        let reading = self.0.world.effect(delay, move || {
            let now = database.0.world.elapsed();
            let state = database.state();
            let answering = state.answering(database.1, now);
            let (primary, majority) = match (answering, &state.deposed) {
                (Some(Answering::Deposed), Some(old)) => (&old.primary, &old.majority),
                (Some(Answering::Primary), _) => (&state.primary, &state.majority),
                _ => return Err(unknown()),
            };
            if !arrives || !is_told {
                return Err(unknown());
            }
            Ok(read(if early { primary } else { majority }))
        });
        reading.await
    }

    /// Whether a request arrives, whether its answer arrives, and the delay.
    fn fate(&self) -> (bool, bool, Duration) {
        let odds = self.state().odds;
        let dice = draw(|chance| chance.below(1_000));
        let slow = draw(|chance| chance.happens(odds.slow));
        let delay = self.delay(if slow { 3_000 } else { 3 });
        let lost = dice < odds.lost_request;
        let untold = !lost && dice < odds.lost_request + odds.lost_answer;
        (!lost, !untold, delay)
    }

    fn delay(&self, most: u64) -> Duration {
        Duration::from_millis(draw(|chance| chance.between(1, most)))
    }
}
