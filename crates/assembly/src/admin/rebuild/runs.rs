//! The last rebuild since the service started: its progress, and a way to stop it from any request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tandem_event_path::rebuild::Progress;
use tandem_runtime::clock::Clock;
use tokio::sync::Notify;
use utoipa::ToSchema;

use crate::admin::documents;

/// Whether a rebuild goes on, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RebuildState {
    /// It goes on.
    Running,
    /// Everything is rebuilt.
    Finished,
    /// It could not go on. What is rebuilt is right, and it can be started again.
    Failed,
    /// It was stopped. What is rebuilt is right, and it can be started again.
    Stopped,
}

/// A rebuild.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RebuildView {
    /// Tells it from every other one.
    pub id: String,
    /// Whether it goes on, or how it ended.
    pub state: RebuildState,
    /// Why it ended early.
    pub reason: Option<String>,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When it ended; `None` while it goes on.
    pub ended_at: Option<DateTime<Utc>>,
    /// What is rebuilt, one after the other.
    pub targets: Vec<String>,
    /// How far each of them is that was begun.
    #[schema(value_type = Vec<documents::Progress>)]
    pub progress: Vec<Progress>,
}

/// How a rebuild ended.
#[derive(Debug)]
pub(super) enum Ended {
    Finished,
    Failed(String),
    Stopped(&'static str),
}

/// A running rebuild that can be stopped.
#[derive(Debug)]
pub(super) struct Run(Arc<Notify>);

impl Run {
    /// Waits for a request to stop.
    pub(super) async fn stopped(&self) {
        self.0.notified().await;
    }
}

/// The last rebuild. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Arc<Mutex<Option<Begun>>>);

/// The progress of a rebuild, and the signal that stops it.
type Begun = (RebuildView, Arc<Notify>);

impl Runs {
    fn last(&self) -> MutexGuard<'_, Option<Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the start of a rebuild, in place of the last one.
    pub(super) fn begin<'a>(&self, clock: &Clock, targets: impl Iterator<Item = &'a str>) -> Run {
        let stop = Arc::new(Notify::new());
        let view = RebuildView {
            id: clock.new_id().to_string(),
            state: RebuildState::Running,
            reason: None,
            begun_at: clock.now().into(),
            ended_at: None,
            targets: targets.map(str::to_owned).collect(),
            progress: Vec::new(),
        };
        *self.last() = Some((view, Arc::clone(&stop)));
        Run(stop)
    }

    /// Records the progress of one step.
    pub(super) fn note(&self, step: &Progress) {
        if let Some((view, _)) = self.last().as_mut() {
            let found = view.progress.iter_mut().find(|it| it.target == step.target);
            match found {
                Some(found) => found.clone_from(step),
                None => view.progress.push(step.clone()),
            }
        }
    }

    /// Records the end of the rebuild.
    pub(super) fn end(&self, clock: &Clock, ended: &Ended) {
        if let Some((view, _)) = self.last().as_mut() {
            (view.state, view.reason) = match ended {
                Ended::Finished => (RebuildState::Finished, None),
                Ended::Failed(reason) => (RebuildState::Failed, Some(reason.clone())),
                Ended::Stopped(why) => (RebuildState::Stopped, Some((*why).to_owned())),
            };
            view.ended_at = Some(clock.now().into());
        }
    }

    /// The last rebuild, if there was one.
    pub(super) fn view(&self) -> Option<RebuildView> {
        self.last().as_ref().map(|(view, _)| view.clone())
    }

    /// Stops the running rebuild; `None` if none is running.
    pub(super) fn stop(&self) -> Option<RebuildView> {
        let last = self.last();
        let (view, stop) = last.as_ref()?;
        if view.state != RebuildState::Running {
            return None;
        }
        stop.notify_one();
        Some(view.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_runtime::shutdown::Shutdown;

    use super::*;

    fn step(target: &str, read: u64) -> Progress {
        Progress {
            target: target.to_owned(),
            read,
            ..Progress::default()
        }
    }

    #[test]
    fn the_newest_step_of_each_target_is_told_and_how_it_ended() {
        let (runs, shutdown) = (Runs::default(), Shutdown::new());
        assert_eq!(runs.view(), None);
        let _run = runs.begin(shutdown.clock(), ["customers", "audit"].into_iter());
        for step in [step("customers", 1), step("customers", 9), step("audit", 2)] {
            runs.note(&step);
        }
        runs.end(shutdown.clock(), &Ended::Failed("Kafka is away".to_owned()));
        let view = runs.view().unwrap();
        let read: Vec<_> = view.progress.iter().map(|it| it.read).collect();
        assert_eq!((read, view.state), (vec![9, 2], RebuildState::Failed));
        assert_eq!(view.reason.as_deref(), Some("Kafka is away"));
        assert!(view.ended_at.is_some());
    }

    #[tokio::test]
    async fn one_that_is_under_way_can_be_stopped_and_one_that_has_ended_cannot() {
        let (runs, shutdown) = (Runs::default(), Shutdown::new());
        assert_eq!(runs.stop(), None);
        let run = runs.begin(shutdown.clock(), ["customers"].into_iter());
        assert!(runs.stop().is_some());
        run.stopped().await;
        runs.end(shutdown.clock(), &Ended::Stopped("an operator stopped it"));
        assert_eq!(runs.stop(), None);
        // A request to stop one rebuild does not stop the next.
        let next = runs.begin(shutdown.clock(), ["customers"].into_iter());
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), next.stopped());
        assert!(waits.await.is_err());
    }
}
