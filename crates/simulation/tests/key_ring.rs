//! The ring of data keys at a start: which keys it accepts before the claims of the topics are judged, and which of
//! them it withdraws afterwards.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_accounts::domain::event::KEY_TOPIC;
use tandem_event_path::{
    claims::Claim,
    data_keys::{KeyRing, Known, RingPorts, Role, StoredKeys, publication},
    log::{Log, Record},
    log_memory::LogWatch,
    signing::{Signatures, Signer, SigningKey, SigningSettings},
    store::{DeadLetterFilter, DeadLetterStore, Registry, StoreError},
};
use tandem_orders::domain::Order;
use tandem_simulation::{
    faults::Faults,
    log::{Cluster, SimLog},
    process::{Process, Wrong},
    store::{Database, Kind},
    world::World,
};

/// Longer than anything takes here, in virtual time.
const LONG: Duration = Duration::from_secs(5);
/// By this time, the logs have been compared closely with what the stores remember.
const LOOKED: Duration = Duration::from_secs(90);

#[derive(Debug)]
struct NothingStored;

#[async_trait]
impl StoredKeys for NothingStored {
    async fn stored(&self, _: &HashSet<String>) -> Result<Known, StoreError> {
        Ok(Known::default())
    }
}

fn signatures(service: &'static str, seed: u8) -> Signatures {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    let settings = SigningSettings::default();
    Signatures::new(service, key, &[(KEY_TOPIC, "accounts")], &settings)
}

fn subjects(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn claim() -> Claim {
    Claim {
        system: "a".to_owned(),
        number: 1,
        ..Claim::default()
    }
}

/// A topic of keys, and the ring of orders on it.
struct Scene {
    world: World,
    cluster: Cluster,
    log: Arc<dyn Log>,
    letters: Arc<dyn DeadLetterStore>,
    registry: Arc<dyn Registry>,
    orders: Signatures,
    process: Process,
}

impl Scene {
    fn new() -> Self {
        let (world, faults) = (World::begin(false), Faults::default());
        let cluster = Cluster::new(&world, &faults);
        cluster.make(KEY_TOPIC, true, 1);
        let process = Process::new("orders", &world, &Wrong::by(0));
        let database = Database::<Order>::new(&world, "orders", Kind::Replicated, &faults);
        Self {
            log: Arc::new(SimLog::new(&cluster, &process)),
            letters: Arc::new(database.clone()),
            registry: Arc::new(database),
            orders: signatures("orders", 9),
            world,
            cluster,
            process,
        }
    }

    fn trust(&self, signers: &[&Signatures]) {
        let keys = signers.iter().map(|signer| *signer.verifying()).collect();
        let signer = Signer {
            keys,
            ..Signer::default()
        };
        self.orders.trust("accounts", signer);
    }

    async fn publish(&self, by: &Signatures, subject: &str, wrapped: Option<&str>) {
        let body = publication(KEY_TOPIC, subject, wrapped).payload;
        let record = Record::new(KEY_TOPIC, subject, body.as_deref().map(str::as_bytes));
        self.log.publish(by.signed(record)).await.unwrap();
    }

    fn ports(&self, signatures: Signatures) -> RingPorts {
        RingPorts {
            signatures,
            letters: Arc::clone(&self.letters),
            memory: None,
        }
    }

    async fn ring(&self) -> KeyRing {
        let ring = KeyRing::start_signed(
            &self.log,
            KEY_TOPIC,
            Role::Reader,
            Arc::new(NothingStored),
            self.ports(self.orders.clone()),
            &self.process.shutdown,
        );
        self.world.sleep(LONG).await;
        ring
    }

    /// The ring of accounts, which has claimed the topics and published a key, and the watch over its topic.
    async fn owned(&self) -> (KeyRing, LogWatch) {
        let accounts = signatures("accounts", 1);
        let signer = Signer {
            keys: vec![*accounts.verifying()],
            ..Signer::default()
        };
        accounts.trust("accounts", signer);
        let shutdown = &self.process.shutdown;
        let ring = KeyRing::start_signed(
            &self.log,
            KEY_TOPIC,
            Role::Owner,
            Arc::new(NothingStored),
            self.ports(accounts),
            shutdown,
        );
        ring.claim("accounts", Some(&claim())).await.unwrap();
        ring.admit();
        ring.publish("1", Some("a")).await.unwrap();
        let watch = LogWatch::new(
            &self.log,
            Arc::clone(&self.registry),
            Vec::new(),
            shutdown.clock(),
        );
        let watch = watch.with_keys(&ring);
        watch.start(shutdown);
        self.world.sleep(LONG).await;
        assert_eq!(watch.alarms(), Some(Vec::new()));
        assert!(!ring.publish_lost_claim("accounts").await.unwrap());
        (ring, watch)
    }

    /// Checks that the topic that was created again is reported until it is accepted, and that the claim is published
    /// again.
    async fn is_made_good(&self, ring: &KeyRing, watch: &LogWatch) {
        self.world.sleep(LOOKED).await;
        let told = watch.alarms().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].topic == KEY_TOPIC && told[0].what.contains("made anew"));
        let keys = subjects(&["1"]);
        assert!(ring.published(&keys).await.unwrap().wrapped.is_empty());
        assert!(ring.publish_lost_claim("accounts").await.unwrap());
        assert!(!ring.publish_lost_claim("accounts").await.unwrap());
        ring.publish("1", Some("a")).await.unwrap();
        assert_eq!(ring.published(&keys).await.unwrap().wrapped["1"], "a");
        self.world.sleep(LOOKED).await;
        assert_eq!(watch.alarms().unwrap(), told);
        watch.accept().await.unwrap();
        self.world.sleep(LOOKED).await;
        assert_eq!(watch.alarms(), Some(Vec::new()));
    }

    async fn set_aside(&self) -> usize {
        self.world.sleep(LONG).await;
        let all = DeadLetterFilter::default();
        self.letters
            .dead_letters(&all, None, 10)
            .await
            .unwrap()
            .len()
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_known_key_has_signed_is_taken_before_the_claims_are_judged() {
    let (scene, accounts) = (Scene::new(), signatures("accounts", 1));
    scene.trust(&[&accounts]);
    scene.publish(&accounts, "1", Some("a")).await;
    scene.publish(&accounts, "2", None).await;
    let ring = scene.ring().await;
    assert!(ring.shows_any(["1".to_owned()].iter()));
    assert!(ring.shows_any(["2".to_owned()].iter()));
    ring.admit();
    let shown = ring.published(&subjects(&["1", "2"])).await.unwrap();
    assert_eq!(shown.wrapped["1"], "a");
    assert!(shown.tombstones.contains("2"));
    assert_eq!(scene.set_aside().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_record_that_nobody_known_has_signed_waits_with_it() {
    let (scene, accounts) = (Scene::new(), signatures("accounts", 1));
    scene.trust(&[&accounts]);
    scene.publish(&signatures("accounts", 2), "1", None).await;
    scene.publish(&accounts, "1", Some("a")).await;
    let ring = scene.ring().await;
    assert!(!ring.shows_any(["1".to_owned()].iter()));
    ring.admit();
    let shown = ring.published(&subjects(&["1"])).await.unwrap();
    assert_eq!(shown.wrapped["1"], "a");
    assert!(shown.erased.is_empty());
    assert_eq!(scene.set_aside().await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_key_has_signed_that_was_given_up_meanwhile_does_not_count_after_all() {
    let scene = Scene::new();
    let (old, new) = (signatures("accounts", 1), signatures("accounts", 2));
    scene.trust(&[&old]);
    scene.publish(&old, "1", Some("a")).await;
    scene.publish(&old, "2", None).await;
    scene.publish(&new, "2", Some("b")).await;
    let ring = scene.ring().await;
    assert!(ring.shows_any(["1".to_owned()].iter()));
    scene.trust(&[&new]);
    ring.admit();
    scene.world.sleep(LONG).await;
    let shown = ring.published(&subjects(&["1", "2"])).await.unwrap();
    assert_eq!(shown.wrapped.get("1"), None);
    assert_eq!(shown.wrapped["2"], "b");
    assert!(shown.erased.is_empty());
    assert_eq!(scene.set_aside().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_added_meanwhile_takes_nothing_back() {
    let scene = Scene::new();
    let (old, new) = (signatures("accounts", 1), signatures("accounts", 2));
    scene.trust(&[&old]);
    scene.publish(&old, "1", Some("a")).await;
    scene.publish(&new, "2", Some("b")).await;
    let ring = scene.ring().await;
    scene.trust(&[&new, &old]);
    ring.admit();
    let shown = ring.published(&subjects(&["1", "2"])).await.unwrap();
    assert_eq!(shown.wrapped["1"], "a");
    assert_eq!(shown.wrapped["2"], "b");
    assert_eq!(scene.set_aside().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_is_told_until_it_is_accepted_and_gets_its_claim_back() {
    let scene = Scene::new();
    let (ring, watch) = scene.owned().await;
    scene.cluster.remake(KEY_TOPIC);
    scene.is_made_good(&ring, &watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_and_has_grown_past_the_old_one_is_known_by_its_claim() {
    let scene = Scene::new();
    let (ring, watch) = scene.owned().await;
    scene.cluster.remake(KEY_TOPIC);
    for other in ["2", "3", "4", "5"] {
        scene
            .publish(&signatures("accounts", 1), other, Some("b"))
            .await;
    }
    scene.is_made_good(&ring, &watch).await;
    let all = ring.published(&subjects(&["2", "5"])).await.unwrap();
    assert_eq!(
        (all.wrapped["2"].as_str(), all.wrapped["5"].as_str()),
        ("b", "b")
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_and_got_everything_back_before_anybody_looked_is_told_too() {
    let scene = Scene::new();
    let (ring, watch) = scene.owned().await;
    scene.cluster.remake(KEY_TOPIC);
    let accounts = signatures("accounts", 1);
    scene.publish(&accounts, "2", Some("b")).await;
    scene.publish(&accounts, "1", Some("a")).await;
    ring.claim("accounts", Some(&claim())).await.unwrap();
    scene.world.sleep(LOOKED).await;
    let told = watch.alarms().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].topic == KEY_TOPIC && told[0].what.contains("made anew"));
    let all = ring.published(&subjects(&["1", "2"])).await.unwrap();
    assert_eq!(
        (all.wrapped["1"].as_str(), all.wrapped["2"].as_str()),
        ("a", "b")
    );
    assert!(!ring.publish_lost_claim("accounts").await.unwrap());
    watch.accept().await.unwrap();
    scene.world.sleep(LOOKED).await;
    assert_eq!(watch.alarms(), Some(Vec::new()));
}
