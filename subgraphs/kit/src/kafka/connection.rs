//! A service's link to Kafka: makes sure of the topics in the background, so that a service starts and serves without it.

use std::{sync::Arc, time::Duration};

use rdkafka::{admin::AdminClient, producer::FutureProducer};
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

/// A link to Kafka. Clones share it.
#[derive(Clone, Debug)]
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    topics_ready: watch::Receiver<bool>,
    link: Link,
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

    /// A producer of single records that are not to be lost, such as dead letters.
    ///
    /// # Errors
    /// When a property is not one of librdkafka's or has a value that it does not take.
    pub fn record_producer(&self, purpose: &'static str) -> Result<FutureProducer, ClientError> {
        self.settings
            .client_config()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "10000")
            .create()
            .map_err(|source| ClientError { purpose, source })
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
