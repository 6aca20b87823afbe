//! A rebuild in the background that is stopped, and one whose caller disconnects.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tandem_event_path::{
    log::{
        Attention, LogError, Member, Membership, Offsets, PublishError, Publisher, Record, Tail,
        TopicState,
    },
    rebuild::{Outcome, RebuildError, Unread},
    sealing::Sealer,
};
use tandem_model::message::Position;
use tokio::sync::Notify;

use super::*;

/// A log that these tests neither read nor write.
#[derive(Debug)]
struct NoLog;

fn none() -> LogError {
    LogError::Unavailable("there is none".to_owned())
}

#[async_trait]
impl Log for NoLog {
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
        Err(none())
    }

    async fn publish(&self, _: Record<'_>) -> Result<Position, PublishError> {
        Err(PublishError::Unavailable("there is none".to_owned()))
    }

    async fn topic(&self, _: &str) -> Result<TopicState, LogError> {
        Err(none())
    }

    fn tail(&self, _: &'static str, _: &Offsets, _: Attention) -> Result<Box<dyn Tail>, LogError> {
        Err(none())
    }

    fn join(&self, _: Membership) -> Result<Box<dyn Member>, LogError> {
        Err(none())
    }
}

/// A target that makes one step, and continues when it is notified.
#[derive(Default)]
struct Slow {
    goes_on: Notify,
    dropped: Arc<AtomicBool>,
}

/// Records that the work was dropped before its end.
struct Dropped(Option<Arc<AtomicBool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(dropped) = &self.0 {
            dropped.store(true, Ordering::SeqCst);
        }
    }
}

fn step(done: bool) -> Progress {
    Progress {
        target: "slow".to_owned(),
        read: 1 + u64::from(done),
        total: 2,
        done,
        ..Progress::default()
    }
}

#[async_trait]
impl Target for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn log(&self) -> &'static str {
        "slow.change"
    }

    async fn rebuild(
        self: Arc<Self>,
        _: &Arc<dyn Log>,
        _: Order,
        _: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Outcome, RebuildError> {
        tell(step(false));
        let mut dropped = Dropped(Some(Arc::clone(&self.dropped)));
        self.goes_on.notified().await;
        dropped.0 = None;
        Ok(Outcome {
            progress: step(true),
            lacking: Vec::new(),
        })
    }

    async fn catch_up(
        self: Arc<Self>,
        _: &Arc<dyn Log>,
        _: Unread,
        _: &Shutdown,
    ) -> Result<Progress, RebuildError> {
        Ok(step(true))
    }

    async fn recall_waiting(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn keep_copies(&self, _: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(Vec::new())
    }

    async fn take_out(&self, _: &[PublishedRow]) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn back_to_the_log(
        self: Arc<Self>,
        _: &Arc<dyn Log>,
        _: Vec<PublishedRow>,
        _: &Shutdown,
    ) -> Result<u64, RebuildError> {
        Ok(0)
    }

    async fn take_back(&self, _: &[Vec<u8>]) -> Result<u64, StoreError> {
        Ok(0)
    }
}

struct Bench {
    target: Arc<Slow>,
    rebuilder: Rebuilder,
    _shutdown: Shutdown,
}

impl Bench {
    fn new() -> Self {
        let (target, shutdown) = (Arc::new(Slow::default()), Shutdown::new());
        let rebuilder = Rebuilder::new(
            vec![Arc::clone(&target) as _],
            Arc::new(NoLog),
            Sealer::new(&[7; 32]),
            shutdown.clone(),
        );
        Self {
            target,
            rebuilder,
            _shutdown: shutdown,
        }
    }

    async fn start(&self, body: &'static str) -> Response {
        start(State(self.rebuilder.clone()), Bytes::from(body)).await
    }

    async fn until(&self, is_so: impl Fn(&RebuildView) -> bool) -> RebuildView {
        loop {
            let Json(view) = show(State(self.rebuilder.clone())).await;
            match view {
                Some(view) if is_so(&view) => return view,
                _ => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
            }
        }
    }
}

const BACKGROUND: &str = r#"{"background": true}"#;

#[tokio::test]
async fn one_in_the_background_goes_on_to_its_end_and_is_told_of_meanwhile() {
    let bench = Bench::new();
    assert!(show(State(bench.rebuilder.clone())).await.0.is_none());
    assert_eq!(bench.start(BACKGROUND).await.status(), StatusCode::ACCEPTED);
    let view = bench.until(|view| !view.progress.is_empty()).await;
    assert_eq!(
        (view.state, view.progress[0].read),
        (RebuildState::Running, 1)
    );
    assert_eq!(view.targets, ["slow"]);
    assert_eq!(bench.start(BACKGROUND).await.status(), StatusCode::CONFLICT);
    bench.target.goes_on.notify_one();
    let view = bench.until(|view| view.ended_at.is_some()).await;
    assert_eq!(
        (view.state, view.progress[0].read),
        (RebuildState::Finished, 2)
    );
}

#[tokio::test]
async fn one_is_stopped_by_whoever_wants_it_and_another_may_begin() {
    let bench = Bench::new();
    let stop_it = async || stop(State(bench.rebuilder.clone())).await.status();
    assert_eq!(stop_it().await, StatusCode::CONFLICT);
    bench.start(BACKGROUND).await;
    bench.until(|view| !view.progress.is_empty()).await;
    assert_eq!(stop_it().await, StatusCode::ACCEPTED);
    let view = bench.until(|view| view.ended_at.is_some()).await;
    assert_eq!(view.state, RebuildState::Stopped);
    assert_eq!(view.reason.as_deref(), Some("an operator stopped it"));
    assert!(
        bench.target.dropped.load(Ordering::SeqCst),
        "the work went on"
    );
    assert_eq!(stop_it().await, StatusCode::CONFLICT);
    while bench.start(BACKGROUND).await.status() != StatusCode::ACCEPTED {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn one_with_lines_ends_when_its_caller_goes_away() {
    let bench = Bench::new();
    let answer = bench.start("").await;
    assert_eq!(answer.status(), StatusCode::OK);
    bench.until(|view| !view.progress.is_empty()).await;
    drop(answer);
    let view = bench.until(|view| view.ended_at.is_some()).await;
    assert_eq!(view.state, RebuildState::Stopped);
}

#[tokio::test]
async fn copies_are_not_made_for_nobody() {
    let bench = Bench::new();
    let answer = bench.start(r#"{"background": true, "copies": true}"#).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(show(State(bench.rebuilder.clone())).await.0.is_none());
}
