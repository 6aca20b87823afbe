//! The ring of data keys at a start that is not the first one of its store: what it knows before it has read the
//! older part again.
#![allow(missing_docs, clippy::unwrap_used)]

mod key_topic;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_accounts::domain::event::KEY_TOPIC;
use tandem_event_path::{
    data_keys::{DataKeys, FixedKeys, KeyMemory, KeyRing, Known, RingPorts, Role, StoredKeys},
    log::{
        Arrival, Attention, Log, LogError, Member, Membership, Offsets, PublishError, Publisher,
        Record, Tail, TopicState,
    },
    signing::Signatures,
};
use tandem_model::message::Position;
use tandem_simulation::{
    log::SimLog,
    process::{Process, Wrong},
};
use tokio::sync::watch;

use key_topic::{KeyTopic, claim, publish, signatures, signer, subjects};

/// Longer than anything takes here that is not blocked, in virtual time.
const LONG: Duration = Duration::from_secs(5);
/// The registry entry in which the store remembers how far the topic was read.
const REMEMBERED: &str = "keys-read/accounts.customer.key";

/// A log whose tails from the beginning of a topic deliver nothing until the gate is opened.
#[derive(Debug)]
struct Gated {
    log: SimLog,
    is_open: watch::Sender<bool>,
}

#[derive(Debug)]
struct GatedTail {
    tail: Box<dyn Tail>,
    gate: Option<watch::Receiver<bool>>,
}

#[async_trait]
impl Tail for GatedTail {
    fn assign(&self, from: &Offsets) -> Result<(), LogError> {
        self.tail.assign(from)
    }

    async fn next(&self) -> Result<Arrival, LogError> {
        if let Some(gate) = &self.gate {
            let mut gate = gate.clone();
            drop(gate.wait_for(|is_open| *is_open).await);
        }
        self.tail.next().await
    }

    fn next_ready(&self) -> Option<Arrival> {
        let is_shut = self.gate.as_ref().is_some_and(|gate| !*gate.borrow());
        if is_shut {
            return None;
        }
        self.tail.next_ready()
    }
}

#[async_trait]
impl Log for Gated {
    async fn ready(&self) -> bool {
        self.log.ready().await
    }

    fn failure(&self) -> Option<String> {
        self.log.failure()
    }

    fn largest_record(&self) -> usize {
        self.log.largest_record()
    }

    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        self.log.publisher()
    }

    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError> {
        self.log.publish(record).await
    }

    async fn topic(&self, topic: &str) -> Result<TopicState, LogError> {
        self.log.topic(topic).await
    }

    fn tail(
        &self,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn Tail>, LogError> {
        let is_from_beginning = from.values().any(|offset| *offset == 0);
        Ok(Box::new(GatedTail {
            tail: self.log.tail(topic, from, attention)?,
            gate: is_from_beginning.then(|| self.is_open.subscribe()),
        }))
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Member>, LogError> {
        self.log.join(membership)
    }
}

/// A store's knowledge: keys, each named like its subject in capitals, and erased subjects.
fn known(wrapped: &[&str], erased: &[&str]) -> Known {
    Known {
        wrapped: wrapped
            .iter()
            .map(|name| ((*name).to_owned(), name.to_uppercase()))
            .collect(),
        erased: subjects(erased),
    }
}

/// A topic of keys that accounts writes to.
struct Scene {
    topic: KeyTopic,
    writer: SimLog,
    accounts: Signatures,
}

/// A run of orders.
struct Run {
    process: Process,
    log: Arc<Gated>,
    ring: KeyRing,
}

impl Run {
    fn open(&self) {
        self.log.is_open.send_replace(true);
    }

    async fn system(&self) -> Option<String> {
        let claims = self.ring.claims().await.unwrap();
        claims.first.map(|first| first.system)
    }

    async fn keys(&self, names: &[&str]) -> Known {
        self.ring.of_sealed(&subjects(names)).await.unwrap()
    }

    async fn is_unanswered(&self, name: &str) -> bool {
        self.ring.of_sealed(&subjects(&[name])).await.is_err()
    }
}

impl Scene {
    fn new() -> Self {
        let topic = KeyTopic::new();
        let process = Process::new("writer", &topic.world, &Wrong::by(0));
        Self {
            writer: SimLog::new(&topic.cluster, &process),
            accounts: signatures("accounts", 1),
            topic,
        }
    }

    async fn publish(&self, subject: &str, wrapped: Option<&str>) {
        publish(&self.writer, &self.accounts, subject, wrapped).await;
    }

    async fn write(&self, key: &str, body: Option<&[u8]>) {
        let record = self.accounts.signed(Record::new(KEY_TOPIC, key, body));
        self.writer.publish(record).await.unwrap();
    }

    async fn claim(&self, system: &str, number: u64) {
        let body = serde_json::to_vec(&claim(system, number)).unwrap();
        self.write("!claim/accounts", Some(&body)).await;
    }

    /// Starts orders with a store that knows `known`.
    fn start(&self, known: Known) -> Run {
        let process = Process::new("orders", &self.topic.world, &Wrong::by(0));
        let log = Arc::new(Gated {
            log: SimLog::new(&self.topic.cluster, &process),
            is_open: watch::channel(false).0,
        });
        let orders = signatures("orders", 9);
        orders.trust("accounts", signer(&[&self.accounts]));
        let ports = RingPorts {
            signatures: orders,
            letters: Arc::clone(&self.topic.letters),
            memory: Some(KeyMemory {
                registry: Arc::clone(&self.topic.registry),
                takes_over: false,
            }),
        };
        let stored: Arc<dyn StoredKeys> = Arc::new(FixedKeys(known));
        let ring = KeyRing::start_signed(
            &(Arc::clone(&log) as Arc<dyn Log>),
            KEY_TOPIC,
            Role::Reader,
            stored,
            ports,
            &process.shutdown,
        );
        Run { process, log, ring }
    }

    /// Runs orders once with a store that knows `known`, until it has noted how far the topic was read.
    async fn run_once(&self, known: Known) {
        let run = self.start(known);
        run.open();
        assert_eq!(run.system().await.as_deref(), Some("a"));
        run.ring.admit();
        run.ring.remember();
        self.topic.world.sleep(LONG).await;
        assert!(
            self.topic
                .registry
                .recall(REMEMBERED)
                .await
                .unwrap()
                .is_some()
        );
        run.process.kill();
    }

    /// Starts orders and admits it, while the older part cannot be read.
    async fn admitted(&self, known: Known) -> Run {
        let run = self.start(known);
        assert_eq!(run.system().await.as_deref(), Some("a"));
        run.ring.admit();
        run
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_knows_whose_the_topics_are_and_what_is_stored_before_it_has_read_all_again() {
    let scene = Scene::new();
    scene.claim("a", 1).await;
    scene.publish("stored", Some("STORED")).await;
    scene.run_once(known(&["stored"], &[])).await;
    scene.publish("new", Some("NEW")).await;
    let run = scene.admitted(known(&["stored"], &[])).await;
    let keys = run.keys(&["stored", "new"]).await;
    assert_eq!(keys, known(&["stored", "new"], &[]));
    // Conclusions from the whole topic wait until all of it is read.
    assert!(run.ring.published(&subjects(&["new"])).await.is_err());
    assert!(run.is_unanswered("unheard").await);
    run.open();
    let all = subjects(&["stored", "new"]);
    let shown = run.ring.published(&all).await.unwrap();
    assert_eq!(shown.wrapped, known(&["stored", "new"], &[]).wrapped);
    assert_eq!(run.keys(&["unheard"]).await, Known::default());
    assert!(!run.ring.publish_lost_claim("accounts").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn nobody_who_was_erased_before_a_start_is_read_while_that_is_read_again() {
    let scene = Scene::new();
    scene.claim("a", 1).await;
    for subject in ["known", "behind"] {
        scene.publish(subject, Some("OLD")).await;
        scene.publish(subject, None).await;
    }
    scene.publish("last", Some("LAST")).await;
    // The store does not know about the erasure of `behind`.
    scene.run_once(known(&["behind"], &["known"])).await;
    // A delayed relay repeats an old key.
    scene.publish("known", Some("OLD")).await;
    let run = scene.admitted(known(&["behind"], &["known"])).await;
    assert_eq!(run.keys(&["known"]).await, known(&[], &["known"]));
    assert!(run.is_unanswered("behind").await);
    run.open();
    let both = ["known", "behind"];
    assert_eq!(run.keys(&both).await, known(&[], &both));
    let shown = run.ring.published(&subjects(&both)).await.unwrap();
    assert_eq!(shown.erased, subjects(&both));
    assert_eq!(shown.tombstones, subjects(&["behind"]), "one is outlived");
}

#[tokio::test(start_paused = true)]
async fn what_came_since_has_the_last_word_over_what_is_read_again() {
    let scene = Scene::new();
    scene.claim("a", 1).await;
    scene.publish("erased", Some("ERASED")).await;
    scene.publish("wrapped", Some("as before")).await;
    scene.publish("last", Some("LAST")).await;
    scene.run_once(known(&["erased", "wrapped"], &[])).await;
    scene.publish("erased", None).await;
    scene.publish("wrapped", Some("WRAPPED")).await;
    scene.claim("a", 2).await;
    let run = scene.admitted(known(&["erased", "wrapped"], &[])).await;
    let both = ["erased", "wrapped"];
    let expected = known(&["wrapped"], &["erased"]);
    assert_eq!(run.keys(&both).await, expected);
    run.open();
    let shown = run.ring.published(&subjects(&both)).await.unwrap();
    assert_eq!(shown.wrapped, expected.wrapped);
    assert_eq!(shown.tombstones, expected.erased);
    assert_eq!(run.keys(&both).await, expected);
}

/// Creates the topic again while nothing runs, with a claim and `keys` keys.
async fn made_anew(keys: usize) {
    let scene = Scene::new();
    scene.claim("a", 1).await;
    scene.publish("stored", Some("STORED")).await;
    scene.publish("gone", None).await;
    scene.run_once(known(&["stored"], &["gone"])).await;
    scene.topic.cluster.remake(KEY_TOPIC);
    scene.claim("b", 1).await;
    for number in 0..keys {
        let subject = format!("subject-{number}");
        scene.publish(&subject, Some("other")).await;
    }
    let run = scene.start(known(&["stored"], &["gone"]));
    assert!(
        run.ring.claims().await.is_err(),
        "it is read from its beginning"
    );
    run.open();
    assert_eq!(run.system().await.as_deref(), Some("b"));
    run.ring.admit();
    let both = subjects(&["stored", "gone"]);
    let shown = run.ring.published(&both).await.unwrap();
    assert!(shown.wrapped.is_empty() && shown.erased.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_another_topic_is_not_used() {
    made_anew(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_shorter_than_what_is_remembered_of_it_is_read_from_its_beginning() {
    made_anew(0).await;
}

#[tokio::test(start_paused = true)]
async fn where_compaction_has_removed_what_was_read_last_all_is_read_first() {
    let scene = Scene::new();
    scene.claim("a", 1).await;
    scene.publish("stored", Some("STORED")).await;
    scene.run_once(known(&["stored"], &[])).await;
    scene.publish("stored", None).await;
    scene.topic.cluster.compact(KEY_TOPIC, 0);
    let run = scene.start(known(&["stored"], &[]));
    assert!(run.ring.claims().await.is_err());
    run.open();
    assert_eq!(run.system().await.as_deref(), Some("a"));
    run.ring.admit();
    assert_eq!(run.keys(&["stored"]).await, known(&[], &["stored"]));
}
