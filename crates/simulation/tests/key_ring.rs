//! The ring of data keys at a start: which keys it accepts before the claims of the topics are judged, and which of
//! them it withdraws afterwards.
#![allow(missing_docs, clippy::unwrap_used)]

mod key_topic;

use std::{sync::Arc, time::Duration};

use tandem_accounts::domain::event::KEY_TOPIC;
use tandem_event_path::{
    data_keys::{FixedKeys, KeyRing, RingPorts, Role},
    log::Log,
    log_memory::LogWatch,
    signing::Signatures,
    store::DeadLetterFilter,
};
use tandem_simulation::{
    log::SimLog,
    process::{Process, Wrong},
};

use key_topic::{KeyTopic, claim, publish, signatures, signer, subjects};

/// Longer than anything takes here, in virtual time.
const LONG: Duration = Duration::from_secs(5);
/// By this time, the logs have been compared closely with what the stores remember.
const LOOKED: Duration = Duration::from_secs(90);

/// A topic of keys, and the ring of orders on it.
struct Scene {
    topic: KeyTopic,
    log: Arc<dyn Log>,
    orders: Signatures,
    process: Process,
}

impl Scene {
    fn new() -> Self {
        let topic = KeyTopic::new();
        let process = Process::new("orders", &topic.world, &Wrong::by(0));
        Self {
            log: Arc::new(SimLog::new(&topic.cluster, &process)),
            orders: signatures("orders", 9),
            topic,
            process,
        }
    }

    fn trust(&self, signers: &[&Signatures]) {
        self.orders.trust("accounts", signer(signers));
    }

    async fn publish(&self, by: &Signatures, subject: &str, wrapped: Option<&str>) {
        publish(self.log.as_ref(), by, subject, wrapped).await;
    }

    fn ports(&self, signatures: Signatures) -> RingPorts {
        RingPorts {
            signatures,
            letters: Arc::clone(&self.topic.letters),
            memory: None,
        }
    }

    async fn ring(&self) -> KeyRing {
        let ring = KeyRing::start_signed(
            &self.log,
            KEY_TOPIC,
            Role::Reader,
            Arc::new(FixedKeys::default()),
            self.ports(self.orders.clone()),
            &self.process.shutdown,
        );
        self.topic.world.sleep(LONG).await;
        ring
    }

    /// The ring of accounts, which has claimed the topics and published a key, and the watch over its topic.
    async fn owned(&self) -> (KeyRing, LogWatch) {
        let accounts = signatures("accounts", 1);
        accounts.trust("accounts", signer(&[&accounts]));
        let shutdown = &self.process.shutdown;
        let ring = KeyRing::start_signed(
            &self.log,
            KEY_TOPIC,
            Role::Owner,
            Arc::new(FixedKeys::default()),
            self.ports(accounts),
            shutdown,
        );
        ring.claim("accounts", Some(&claim("a", 1))).await.unwrap();
        ring.admit();
        ring.publish("1", Some("a")).await.unwrap();
        let watch = LogWatch::new(
            &self.log,
            Arc::clone(&self.topic.registry),
            Vec::new(),
            shutdown.clock(),
        );
        let watch = watch.with_keys(&ring);
        watch.start(shutdown);
        self.topic.world.sleep(LONG).await;
        assert_eq!(watch.alarms(), Some(Vec::new()));
        assert!(!ring.publish_lost_claim("accounts").await.unwrap());
        (ring, watch)
    }

    /// Checks that the topic that was created again is reported until it is accepted, and that the claim is published
    /// again.
    async fn is_made_good(&self, ring: &KeyRing, watch: &LogWatch) {
        self.topic.world.sleep(LOOKED).await;
        let told = watch.alarms().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].topic == KEY_TOPIC && told[0].what.contains("made anew"));
        let keys = subjects(&["1"]);
        assert!(ring.published(&keys).await.unwrap().wrapped.is_empty());
        assert!(ring.publish_lost_claim("accounts").await.unwrap());
        assert!(!ring.publish_lost_claim("accounts").await.unwrap());
        ring.publish("1", Some("a")).await.unwrap();
        assert_eq!(ring.published(&keys).await.unwrap().wrapped["1"], "a");
        self.topic.world.sleep(LOOKED).await;
        assert_eq!(watch.alarms().unwrap(), told);
        watch.accept().await.unwrap();
        self.topic.world.sleep(LOOKED).await;
        assert_eq!(watch.alarms(), Some(Vec::new()));
    }

    async fn set_aside(&self) -> usize {
        self.topic.world.sleep(LONG).await;
        let all = DeadLetterFilter::default();
        self.topic
            .letters
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
    scene.topic.world.sleep(LONG).await;
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
    scene.topic.cluster.remake(KEY_TOPIC);
    scene.is_made_good(&ring, &watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_and_has_grown_past_the_old_one_is_known_by_its_claim() {
    let scene = Scene::new();
    let (ring, watch) = scene.owned().await;
    scene.topic.cluster.remake(KEY_TOPIC);
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
    scene.topic.cluster.remake(KEY_TOPIC);
    let accounts = signatures("accounts", 1);
    scene.publish(&accounts, "2", Some("b")).await;
    scene.publish(&accounts, "1", Some("a")).await;
    ring.claim("accounts", Some(&claim("a", 1))).await.unwrap();
    scene.topic.world.sleep(LOOKED).await;
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
    scene.topic.world.sleep(LOOKED).await;
    assert_eq!(watch.alarms(), Some(Vec::new()));
}
