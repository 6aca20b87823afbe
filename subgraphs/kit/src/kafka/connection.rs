//! A service's link to Kafka: makes sure of the topics in the background, so that a service starts and serves without it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    admin::AdminClient,
    error::KafkaError,
    message::ToBytes,
    producer::{FutureProducer, FutureRecord, Producer},
};
use tokio::sync::watch;

use super::{
    ClientError,
    link::Link,
    settings::KafkaSettings,
    topics::{self, Topic},
};
use crate::shutdown::Shutdown;

/// Longest pause between two tries to reach Kafka.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a single record waits for room in the producer's queue; there it waits as long again for its acknowledgement.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// A link to Kafka. Clones share it.
#[derive(Clone)]
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    topics_ready: watch::Receiver<bool>,
    link: Link,
    records: Arc<Mutex<Option<FutureProducer>>>,
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
    /// Begins to reach Kafka and to make sure of the topics; returns at once.
    ///
    /// # Errors
    /// When a property is not one of librdkafka's or has a value that it does not take.
    pub fn connect(
        settings: KafkaSettings,
        needed: Vec<Topic>,
        shutdown: &Shutdown,
    ) -> Result<Self, ClientError> {
        let link = Link::default();
        let config = settings.client_config();
        let wrong = |source| ClientError {
            purpose: "topics",
            source,
        };
        let admin: AdminClient<Link> = config.create_with_context(link.clone()).map_err(wrong)?;
        // An administrative client never looks at what is said of its link; a producer does.
        let listener: FutureProducer<Link> =
            config.create_with_context(link.clone()).map_err(wrong)?;
        let admin = Arc::new(admin);
        let settings = Arc::new(settings);
        let (ready, topics_ready) = watch::channel(false);
        let token = shutdown.token();
        let kafka = Self {
            settings: Arc::clone(&settings),
            topics_ready,
            link: link.clone(),
            records: Arc::default(),
        };
        shutdown.spawn(async move {
            let mut pause = Duration::from_millis(50);
            loop {
                let tried = tokio::select! {
                    () = token.cancelled() => return,
                    tried = topics::ensure(&admin, &settings, &needed) => tried,
                };
                match tried {
                    Ok(()) => {
                        link.let_in();
                        drop(listener);
                        // Nobody left to hear it is fine: the service is going away.
                        let _ = ready.send(true);
                        // The sender stays until the end, so that waiting for it never fails early.
                        token.cancelled().await;
                        return;
                    }
                    // Said already, and more clearly than the time-out that it comes to.
                    Err(error) if link.refusal().is_some() => {
                        tracing::debug!(%error, "Kafka still refuses the login");
                    }
                    Err(error) => {
                        tracing::warn!(%error, brokers = settings.brokers, pause = ?pause, "Kafka is not ready; trying again");
                    }
                }
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        Ok(kafka)
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &KafkaSettings {
        &self.settings
    }

    /// Whether the topics are known to be there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.topics_ready.borrow()
    }

    /// Why Kafka has not been reached yet, as a sentence; `None` when it has.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.is_ready() {
            return None;
        }
        let unknown = "Kafka has not been reached yet; what is to be published waits";
        Some(self.link.refusal().unwrap_or_else(|| unknown.to_owned()))
    }

    /// Publishes a single record that is not to be lost, such as a dead letter; returns when it is acknowledged, after
    /// 20 s at most.
    ///
    /// # Errors
    /// When Kafka does not take it, or not in time.
    pub async fn send_record<K, P>(&self, record: FutureRecord<'_, K, P>) -> Result<(), KafkaError>
    where
        K: ToBytes + ?Sized + Sync,
        P: ToBytes + ?Sized + Sync,
    {
        let producer = self.record_producer()?;
        let sent = producer.send(record, RECORD_LIMIT).await;
        sent.map(drop).map_err(|(error, _)| error)
    }

    /// The one producer of single records. All share it: each producer of rdkafka 0.39 spins for the last millisecond of every
    /// tenth of a second that it waits, which is a hundredth of a processor.
    fn record_producer(&self) -> Result<FutureProducer, KafkaError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        // One that had a fatal error (KIP-360) takes nothing any more: only a new one does.
        if let Some(producer) = records
            .as_ref()
            .filter(|producer| producer.client().fatal_error().is_none())
        {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = self
            .settings
            .client_config()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "10000")
            .create()?;
        Ok(records.insert(producer).clone())
    }

    /// Waits until the topics are known to be there. Returns false if the service stops before.
    pub async fn ready(&self) -> bool {
        self.topics_ready
            .clone()
            .wait_for(|ready| *ready)
            .await
            .is_ok()
    }
}
