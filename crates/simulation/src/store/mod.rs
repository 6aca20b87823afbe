//! The simulated store: a primary that loses what no majority has when another takes its place, and answers that do not come.

pub mod db;
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

/// How often things go wrong on the way, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// A request does not arrive.
    pub lost_request: u64,
    /// A request is carried out, and nobody is told.
    pub lost_answer: u64,
    /// A request takes seconds.
    pub slow: u64,
}

/// How a database loses and shows what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A replica set: what a majority has stays, and most readers see that alone.
    Replicated,
    /// A file of one process: readers see everything at once.
    Embedded,
}

type Job<A> = Arc<dyn Fn(&mut Db<A>) + Send + Sync>;

struct State<A> {
    /// As the primary has it.
    primary: Db<A>,
    /// As a majority has it.
    majority: Db<A>,
    /// What the primary has and the majority has not, in order.
    ahead: VecDeque<(u64, Job<A>)>,
    written: u64,
    epoch: u64,
    away_until: u64,
    odds: Odds,
}

struct Shared<A> {
    world: World,
    name: &'static str,
    kind: Kind,
    faults: Faults,
    state: Mutex<State<A>>,
}

/// A database of one service. Clones share it.
pub struct Database<A>(Arc<Shared<A>>);

impl<A> Clone for Database<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
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

fn unknown() -> StoreError {
    StoreError::Away("it did not answer in time".to_owned())
}

impl<A: Aggregate> Database<A> {
    /// An empty database.
    #[must_use]
    pub fn new(world: &World, name: &'static str, kind: Kind, faults: &Faults) -> Self {
        Self(Arc::new(Shared {
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
                odds: Odds::default(),
            }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often things go wrong from now on.
    pub fn set_odds(&self, odds: Odds) {
        self.state().odds = odds;
    }

    /// From now on an aggregate with so many pending events is too large for one more.
    pub fn refuse_beyond(&self, most_pending: usize) {
        let mut state = self.state();
        state.primary.most_pending = Some(most_pending);
        state.majority.most_pending = Some(most_pending);
    }

    /// Looks at what a majority has.
    pub fn look<T>(&self, look: impl FnOnce(&Db<A>) -> T) -> T {
        look(&self.state().majority)
    }

    /// Whether it is a file of one process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.0.kind == Kind::Embedded
    }

    /// Another primary takes over, or the one there is crashes: what no majority has is lost. For a time nobody answers.
    pub fn fail_over(&self, away: Duration) {
        let now = self.0.world.elapsed();
        let mut state = self.state();
        // Some of it may have got to a majority without the primary knowing.
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
        state.away_until = now + u64::try_from(away.as_nanos()).unwrap_or(u64::MAX);
        drop(state);
        let name = self.0.name;
        self.0
            .world
            .note(|| format!("store {name} fails over, {held} held, {lost} lost"));
    }

    /// Nobody answers for a time.
    pub fn go_away(&self, time: Duration) {
        let until = self.0.world.elapsed() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.state().away_until = until;
    }

    /// It answers again.
    pub fn come_back(&self) {
        self.state().away_until = 0;
    }

    fn is_away(&self) -> bool {
        self.0.world.elapsed() < self.state().away_until
    }

    /// What the primary has is held by a majority up to this write, if it is of this epoch still. Answers whether.
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

    /// Applies a job on the primary. Answers its result with its number and its epoch.
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

    /// Writes, and waits until that is held by a majority.
    async fn write<R: Send + 'static>(
        &self,
        what: &'static str,
        job: impl Fn(&mut Db<A>) -> R + Send + Sync + 'static,
    ) -> Result<R, StoreError> {
        let (result, _) = self.write_in_epoch(what, job).await?;
        Ok(result)
    }

    /// Writes, and waits until that is held by a majority. Answers the epoch too.
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
            if !arrives || database.is_away() {
                let _ = answer.send(Err(unknown()));
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

    /// Writes, and waits until readers see it. Answers the epoch too.
    async fn write_early<R: Send + 'static>(
        &self,
        job: impl Fn(&mut Db<A>) -> R + Send + Sync + 'static,
    ) -> Result<(R, WriteEpoch), StoreError> {
        let (answer, told) = oneshot::channel();
        let (database, world) = (self.clone(), self.0.world.clone());
        let (arrives, is_told, delay) = self.fate();
        let held_after = self.delay(80);
        self.0.world.later(delay, move || {
            if !arrives || database.is_away() {
                let _ = answer.send(Err(unknown()));
                return;
            }
            let (result, number, epoch) = database.apply(job);
            let told = (result, WriteEpoch(epoch.to_string()));
            let _ = answer.send(if is_told { Ok(told) } else { Err(unknown()) });
            world.later(held_after, move || {
                database.replicate(number, epoch);
            });
        });
        told.await.unwrap_or_else(|_| Err(unknown()))
    }

    /// Reads what a majority has.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Db<A>) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let early = self.is_embedded();
        self.read_as(early, read).await
    }

    /// Reads what the primary has.
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
            if !arrives || !is_told || database.is_away() {
                return Err(unknown());
            }
            let state = database.state();
            Ok(read(if early {
                &state.primary
            } else {
                &state.majority
            }))
        });
        reading.await
    }

    /// Whether a request arrives, whether its answer does, and after how long.
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
