//! A store that is behind the log at a start, such as a restored backup: what is read from the log, and when commands
//! are accepted.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tandem_event_path::{
    checkpoint::Checkpoint,
    commands::Gate,
    log::{Log, Offsets, Record},
    log_memory::{LogWatch, Remembered, remembered},
    projection::{Projection, ProjectionStatus, run_projection},
    rebuild::{
        Order, Outcome, Progress, RebuildError, Target, TruncatedLog, Unread, fill_new_store,
        mark_filled,
    },
    store::{DeadLetterStore, PublishedRow, Registry, StoreError},
};
use tandem_model::message::{Message, Position, Rejection};
use tandem_orders::domain;
use tandem_runtime::shutdown::Shutdown;
use tandem_simulation::{
    faults::Faults,
    log::{Cluster, SimLog},
    process::{Process, Wrong},
    store::{Database, Kind},
    world::World,
};
use tokio::sync::Semaphore;

const OWN: &str = "own.change";
const OTHER: &str = "other.change";
/// Longer than anything takes here that is not blocked, in virtual time, and shorter than a start waits for the log.
const MOMENT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);

/// A rebuild target that reads what it gets when it is allowed to.
struct Reads {
    topic: &'static str,
    caught_up: Mutex<Vec<Unread>>,
    rebuilt: AtomicUsize,
    may: Semaphore,
}

impl Reads {
    fn of(topic: &'static str) -> Arc<Self> {
        Arc::new(Self {
            topic,
            caught_up: Mutex::default(),
            rebuilt: AtomicUsize::new(0),
            may: Semaphore::new(0),
        })
    }

    /// The offsets from which it was asked to read.
    fn begun(&self) -> Vec<Offsets> {
        let caught_up = self.caught_up.lock().unwrap();
        caught_up.iter().map(|unread| unread.from.clone()).collect()
    }
}

#[async_trait]
impl Target for Reads {
    fn name(&self) -> &'static str {
        self.topic
    }

    fn log(&self) -> &'static str {
        self.topic
    }

    async fn rebuild(
        self: Arc<Self>,
        _: &Arc<dyn Log>,
        _: Order,
        _: &Shutdown,
        _: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Outcome, RebuildError> {
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::default())
    }

    async fn catch_up(
        self: Arc<Self>,
        _: &Arc<dyn Log>,
        unread: Unread,
        _: &Shutdown,
    ) -> Result<Progress, RebuildError> {
        self.caught_up.lock().unwrap().push(unread);
        self.may.acquire().await.unwrap().forget();
        Ok(Progress::default())
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

/// A projection that accepts everything.
struct Applies;

#[async_trait]
impl Projection for Applies {
    type Item = ();

    fn name(&self) -> &'static str {
        "applies"
    }

    fn decode(&self, _: &Message) -> Result<(), Rejection> {
        Ok(())
    }

    fn subject<'a>(&self, _: &'a ()) -> &'a str {
        ""
    }

    async fn apply(&self, _: Vec<(Position, ())>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Two topics with three messages each, and a store that was made from both.
struct Scene {
    world: World,
    cluster: Cluster,
    log: Arc<dyn Log>,
    registry: Arc<dyn Registry>,
    letters: Arc<dyn DeadLetterStore>,
    own: Arc<Reads>,
    other: Arc<Reads>,
    process: Process,
}

impl Scene {
    async fn new() -> Self {
        let (world, faults) = (World::begin(false), Faults::default());
        let cluster = Cluster::new(&world, &faults);
        let process = Process::new("orders", &world, &Wrong::by(0));
        let log: Arc<dyn Log> = Arc::new(SimLog::new(&cluster, &process));
        for topic in [OWN, OTHER] {
            cluster.make(topic, false, 1);
            for key in ["1", "2", "3"] {
                let record = Record::new(topic, key, Some(b"{}".as_slice()));
                log.publish(record).await.unwrap();
            }
        }
        let database = Database::<domain::Order>::new(&world, "orders", Kind::Embedded, &faults);
        Self {
            registry: Arc::new(database.clone()),
            letters: Arc::new(database),
            own: Reads::of(OWN),
            other: Reads::of(OTHER),
            world,
            cluster,
            log,
            process,
        }
    }

    fn messages(&self, topic: &str) -> Vec<Message> {
        let read = |topic: &mut tandem_simulation::log::topic::Topic| {
            topic.partitions[0].read(0, usize::MAX).0
        };
        self.cluster.change(topic, read).unwrap()
    }

    /// Makes the store remember that it has read this many messages of a topic.
    async fn has_read(&self, topic: &str, count: usize) {
        let last = Checkpoint::of(&self.messages(topic)[count - 1]);
        self.remembers(topic, last).await;
    }

    async fn remembers(&self, topic: &str, last: Checkpoint) {
        let remembered = Remembered {
            begin: 0,
            last,
            proven: None,
            identity: None,
        };
        let text = serde_json::to_string(&remembered).unwrap();
        let name = format!("log/{topic}/0");
        self.registry.note(&name, &text).await.unwrap();
    }

    async fn is_filled(&self) {
        mark_filled(self.registry.as_ref()).await.unwrap();
    }

    /// The offset of the message of its own topic that the store remembers as the last applied one.
    async fn remembered(&self) -> i64 {
        let remembered = remembered(self.registry.as_ref(), OWN).await.unwrap();
        remembered[&0].last.offset
    }

    fn start(&self) -> Gate {
        self.start_with(ProjectionStatus::default()).0
    }

    fn start_with(&self, status: ProjectionStatus) -> (Gate, LogWatch) {
        let (gate, shutdown) = (Gate::closed(), &self.process.shutdown);
        let logs = vec![(OWN, status), (OTHER, ProjectionStatus::default())];
        let watch = LogWatch::new(
            &self.log,
            Arc::clone(&self.registry),
            logs,
            shutdown.clock(),
        );
        let own: Arc<dyn Target> = Arc::clone(&self.own) as _;
        fill_new_store(
            Arc::clone(&self.registry),
            vec![own, Arc::clone(&self.other) as _],
            Arc::clone(&self.log),
            gate.clone(),
            &watch,
            TruncatedLog::Refused,
            shutdown,
        );
        (gate, watch)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_its_own_topic_takes_no_commands_until_it_has_what_came_since() {
    let scene = Scene::new().await;
    scene.is_filled().await;
    scene.has_read(OWN, 1).await;
    scene.has_read(OTHER, 3).await;
    let gate = scene.start();
    scene.world.sleep(LONG).await;
    assert_eq!(scene.own.begun(), [Offsets::from([(0, 1)])]);
    assert!(!gate.is_open() && gate.reason().is_some());
    scene.own.may.add_permits(1);
    scene.world.sleep(MOMENT).await;
    assert!(gate.is_open());
    assert!(scene.other.begun().is_empty());
    assert_eq!(scene.own.rebuilt.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_has_read_all_takes_commands_at_once_and_reads_nothing() {
    let scene = Scene::new().await;
    scene.is_filled().await;
    scene.has_read(OWN, 3).await;
    scene.has_read(OTHER, 3).await;
    let gate = scene.start();
    scene.world.sleep(MOMENT).await;
    assert!(gate.is_open());
    assert!(scene.own.begun().is_empty() && scene.other.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_made_from_the_topic_of_another_service_holds_commands_up_for_a_moment_alone() {
    let scene = Scene::new().await;
    scene.is_filled().await;
    scene.has_read(OWN, 3).await;
    scene.has_read(OTHER, 2).await;
    let gate = scene.start();
    scene.world.sleep(MOMENT).await;
    assert_eq!(scene.other.begun(), [Offsets::from([(0, 2)])]);
    assert!(!gate.is_open());
    scene.world.sleep(LONG).await;
    assert!(gate.is_open());
    assert_eq!(scene.other.begun().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_copied_before_it_had_read_anything_reads_all() {
    let scene = Scene::new().await;
    scene.is_filled().await;
    let gate = scene.start();
    scene.world.sleep(MOMENT).await;
    assert_eq!(scene.own.begun(), [Offsets::from([(0, 0)])]);
    assert!(!gate.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_store_of_an_older_version_that_remembers_nothing_goes_on_as_it_is() {
    let scene = Scene::new().await;
    scene.registry.note("filled", "yes").await.unwrap();
    let gate = scene.start();
    scene.world.sleep(MOMENT).await;
    assert!(gate.is_open());
    assert!(scene.own.begun().is_empty() && scene.other.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_from_a_log_that_is_not_the_one_that_the_store_was_made_from() {
    let scene = Scene::new().await;
    scene.is_filled().await;
    let another = Checkpoint {
        offset: 0,
        fingerprint: "another".to_owned(),
    };
    scene.remembers(OWN, another).await;
    scene.has_read(OTHER, 3).await;
    let gate = scene.start();
    scene.world.sleep(MOMENT).await;
    assert!(gate.is_open());
    assert!(scene.own.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_the_log_is_away_commands_are_taken_after_a_moment_and_what_came_since_is_read_when_it_is_back()
 {
    let scene = Scene::new().await;
    scene.is_filled().await;
    scene.has_read(OWN, 1).await;
    scene.has_read(OTHER, 3).await;
    scene.cluster.go_away(LONG * 2);
    let gate = scene.start();
    scene.world.sleep(MOMENT).await;
    assert!(!gate.is_open());
    scene.world.sleep(LONG).await;
    assert!(gate.is_open());
    assert!(scene.own.begun().is_empty());
    scene.world.sleep(LONG * 2).await;
    assert_eq!(scene.own.begun(), [Offsets::from([(0, 1)])]);
}

#[tokio::test(start_paused = true)]
async fn what_is_applied_meanwhile_is_not_remembered_before_all_is_read() {
    let scene = Scene::new().await;
    scene.is_filled().await;
    scene.has_read(OWN, 1).await;
    scene.has_read(OTHER, 3).await;
    let shutdown = &scene.process.shutdown;
    let letters = Arc::clone(&scene.letters);
    let projection = Arc::new(Applies);
    let status = run_projection(projection, "store", OWN, &scene.log, letters, shutdown).unwrap();
    let (gate, watch) = scene.start_with(status.clone());
    watch.start(shutdown);
    scene.world.sleep(LONG).await;
    assert_eq!(status.checkpoints()[&0].offset, 2);
    assert!(!gate.is_open());
    assert_eq!(scene.remembered().await, 0);
    scene.own.may.add_permits(1);
    scene.world.sleep(LONG).await;
    assert!(gate.is_open());
    assert_eq!(scene.remembered().await, 2);
}
