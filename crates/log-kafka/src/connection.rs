//! A service's connection to Kafka. It creates and checks the topics in the background, so that a service can start and
//! serve while Kafka is down.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{admin::AdminClient, error::KafkaError};
use tandem_event_path::log::{
    Attention, Ends, Log, LogError, Member, Membership, Offsets, PublishError, Publisher, Record,
    Tail, TopicState,
};
use tandem_model::message::Position;
use tandem_runtime::{backoff::Backoff, clock::Clock, shutdown::Shutdown};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    REQUEST_LIMIT, away, certificate,
    link::Link,
    member::KafkaMember,
    no_client,
    producer::Producer,
    publisher::{KafkaPublisher, publish_error},
    reason::Cause,
    settings::{COMMITTED, KafkaSettings, UNCOMMITTED},
    tail::{self, KafkaTail},
    topics::{self, Topic},
    unreadable::Tails,
};

/// The pauses between attempts to reach Kafka: at first, and while it is known to be unreachable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
const BACKOFF_WHILE_DOWN: Backoff =
    Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
/// How often the same reason is logged again while Kafka is unreachable.
const REMINDER: Duration = Duration::from_secs(60);
/// The time limit of a check whether Kafka answers.
const LOOK: Duration = Duration::from_secs(3);
/// How long a single record waits for space in the producer's queue. It then waits as long again for its
/// acknowledgement.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// The pause before the next attempt while the queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(100);

/// A connection to Kafka. Clones share it.
#[derive(Clone)]
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    topics_ready: watch::Receiver<bool>,
    link: Link,
    clock: Clock,
    tails: Tails,
    records: Arc<Mutex<Option<Producer>>>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Kafka")
            .field("settings", &self.settings)
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl Kafka {
    /// Starts to connect to Kafka and to create the topics. Returns at once.
    ///
    /// # Errors
    /// If librdkafka does not know a property, or refuses its value.
    pub fn connect(
        settings: KafkaSettings,
        needed: Vec<Topic>,
        shutdown: &Shutdown,
    ) -> Result<Self, LogError> {
        let link = Link::default();
        let config = settings.client_config();
        let admin: AdminClient<Link> = config
            .create_with_context(link.clone())
            .map_err(no_client("topics"))?;
        // An administrative client never polls for the errors of its connection, but a producer does.
        let listener = Producer::new(&config, link.clone()).map_err(no_client("topics"))?;
        let admin = Arc::new(admin);
        let settings = Arc::new(settings);
        let (ready, topics_ready) = watch::channel(false);
        let token = shutdown.token();
        let kafka = Self {
            settings: Arc::clone(&settings),
            topics_ready,
            link: link.clone(),
            clock: shutdown.clock().clone(),
            tails: Tails::default(),
            records: Arc::default(),
        };
        shutdown.spawn(watch_link(kafka.clone(), token.clone()));
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            let ensured = stop.retry(
                BACKOFF,
                || topics::ensure(&admin, &settings, &needed),
                |error, pause| {
                    // The reason is logged already, and is clearer than this timeout.
                    if link.is_down() {
                        tracing::debug!(%error, "Kafka is still out of reach");
                    } else {
                        tracing::warn!(%error, brokers = settings.brokers, ?pause, "Kafka is not ready; trying again");
                    }
                },
            );
            let done = tokio::select! {
                () = token.cancelled() => return,
                done = ensured => done,
            };
            // It would poll for as long as it is there. Its end waits for that, so it needs a thread of its own.
            drop(tokio::task::spawn_blocking(move || drop(admin)));
            if done.is_some() {
                // If no topics are needed, no request was sent.
                if !needed.is_empty() {
                    link.let_in();
                    drop(listener);
                }
                // No receiver may be left when the service ends.
                let _ = ready.send(true);
                // The sender lives until the end, so that waiting for the topics never fails early.
                token.cancelled().await;
            }
        });
        Ok(kafka)
    }

    /// The settings of this connection.
    #[must_use]
    pub fn settings(&self) -> &KafkaSettings {
        &self.settings
    }

    /// Whether the topics are known to exist.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.topics_ready.borrow()
    }

    /// Why a client could not use Kafka lately, as a sentence, if a client has reported an error.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.link.reason().map(|reason| reason.to_string())
    }

    /// What the clients of this process report about their connections.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// For each partition of a topic, the offset from which to read messages that were published at this time (in
    /// milliseconds since 1970) or later.
    ///
    /// # Errors
    /// If the log does not answer within 20 s.
    pub async fn since(&self, topic: &str, time_ms: i64) -> Result<Offsets, LogError> {
        let ends = self.topic(topic).await?.ends;
        let topic = self.settings.physical(topic).into_owned();
        tail::since(Arc::clone(&self.settings), topic, time_ms, ends).await
    }

    /// The one producer of single records, which all callers share.
    fn record_producer(&self) -> Result<Producer, KafkaError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        // After a fatal error (KIP-360) a producer accepts no more records. Only a new one does.
        if let Some(producer) = records
            .as_ref()
            .filter(|producer| producer.fatal_error().is_none())
        {
            return Ok(producer.clone());
        }
        let config = self.settings.client_config_with(&[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "10000"),
        ]);
        let producer = Producer::new(&config, self.link())?;
        Ok(records.insert(producer).clone())
    }
}

#[async_trait]
impl Log for Kafka {
    async fn ready(&self) -> bool {
        self.topics_ready
            .clone()
            .wait_for(|ready| *ready)
            .await
            .is_ok()
    }

    fn failure(&self) -> Option<String> {
        if self.is_ready() && !self.link.is_confirmed_down() {
            return None;
        }
        let unknown = "Kafka has not been reached yet; what is to be published waits";
        Some(self.reason().unwrap_or_else(|| unknown.to_owned()))
    }

    fn unreadable(&self) -> Vec<String> {
        self.tails.lasting()
    }

    fn largest_record(&self) -> usize {
        self.settings.largest_message()
    }

    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        Ok(Arc::new(KafkaPublisher::new(
            Arc::clone(&self.settings),
            self.link(),
        )?))
    }

    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError> {
        let producer = self
            .record_producer()
            .map_err(|error| publish_error(&error))?;
        let topic = self.settings.physical(record.topic);
        let mut waited = Duration::ZERO;
        let delivery = loop {
            match producer
                .send(&topic, &record)
                .map_err(|error| publish_error(&error))
            {
                Err(PublishError::Full(_)) if waited < RECORD_LIMIT => {
                    let pause = self.clock.jittered(QUEUE_FULL);
                    self.clock.sleep(pause).await;
                    waited += pause;
                }
                sent => break sent?,
            }
        };
        let delivered = delivery.await.unwrap_or(Err(KafkaError::Canceled));
        delivered.map_err(|error| publish_error(&error))
    }

    async fn topic(&self, topic: &str) -> Result<TopicState, LogError> {
        let topic = self.settings.physical(topic).into_owned();
        let ends = tail::ends(Arc::clone(&self.settings), topic, COMMITTED).await?;
        Ok(TopicState {
            // librdkafka supports topic ids (KIP-516), but its Rust binding does not.
            identity: None,
            ends,
        })
    }

    async fn uncommitted_ends(&self, topic: &str) -> Result<Ends, LogError> {
        let topic = self.settings.physical(topic).into_owned();
        tail::ends(Arc::clone(&self.settings), topic, UNCOMMITTED).await
    }

    async fn has_members(&self, group: &str) -> Result<bool, LogError> {
        let producer = self
            .record_producer()
            .map_err(no_client("a look at a group"))?;
        let group = self.settings.physical(group).into_owned();
        // This call of librdkafka blocks its thread.
        let asked = tokio::task::spawn_blocking(move || {
            let client = producer.client();
            let list = client.fetch_group_list(Some(&group), REQUEST_LIMIT)?;
            let groups = list.groups();
            Ok(groups.iter().any(|group| !group.members().is_empty()))
        });
        let broken_off =
            |_| LogError::Unavailable("the question about a group was broken off".into());
        asked.await.map_err(broken_off)?.map_err(away)
    }

    fn tail(
        &self,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn Tail>, LogError> {
        let told = self.tails.of(topic, &self.clock);
        let tail = KafkaTail::open(&self.settings, topic, from, attention, told, &self.clock)?;
        Ok(Box::new(tail))
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(KafkaMember::new(&self.settings, membership)?))
    }
}

/// Logs the reason whenever Kafka becomes unreachable, and checks until it is back.
async fn watch_link(kafka: Kafka, token: CancellationToken) {
    let link = &kafka.link;
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            () = link.down() => {}
        }
        // A broker closes idle connections, and the client then reports that it has none. Only a request shows whether
        // Kafka answers.
        if kafka.is_ready() && answers(&kafka).await {
            link.let_in();
            continue;
        }
        if link
            .reason()
            .is_some_and(|reason| reason.cause == Cause::Certificate)
        {
            let (settings, stop) = (Arc::clone(&kafka.settings), token.clone());
            let cause = tokio::task::spawn_blocking(move || certificate::cause(&settings, &stop));
            if let Ok(Some(cause)) = cause.await {
                link.refine(cause);
            }
        }
        link.confirm();
        tokio::select! {
            () = token.cancelled() => return,
            () = report_until_back(&kafka) => {}
        }
        tracing::info!("Kafka answers");
    }
}

/// Logs why Kafka is unreachable until it answers: at first, when the reason changes, and at intervals.
async fn report_until_back(kafka: &Kafka) {
    let mut told: Option<(Option<Cause>, Instant)> = None;
    let mut pauses = BACKOFF_WHILE_DOWN.pauses(&kafka.clock);
    loop {
        let reason = kafka.link.reason();
        let cause = reason.as_ref().map(|reason| reason.cause);
        let is_news =
            told.is_none_or(|(last, when)| last != cause || kafka.clock.since(when) >= REMINDER);
        if is_news {
            match reason {
                Some(reason) => tracing::error!("{reason}"),
                None => {
                    tracing::error!(brokers = kafka.settings.brokers, "Kafka is out of reach")
                }
            }
            told = Some((cause, kafka.clock.instant()));
        }
        tokio::select! {
            () = kafka.link.up() => return,
            () = kafka.clock.sleep(pauses.next_pause()) => {}
        }
        // Until the topics exist, the task that creates them sends the requests.
        if kafka.is_ready() && answers(kafka).await {
            kafka.link.let_in();
            return;
        }
    }
}

/// Whether Kafka answers a request.
async fn answers(kafka: &Kafka) -> bool {
    let Ok(producer) = kafka.record_producer() else {
        return false;
    };
    // This call of librdkafka blocks its thread.
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = producer.client().fetch_metadata(None, LOOK);
        metadata.is_ok()
    });
    asked.await.unwrap_or_default()
}
