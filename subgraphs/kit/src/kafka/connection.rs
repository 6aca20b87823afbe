//! A service's link to Kafka: makes sure of the topics in the background, so that a service starts and serves without it.

use std::{sync::Arc, time::Duration};

use rdkafka::{admin::AdminClient, client::DefaultClientContext};
use tokio::sync::watch;

use super::{
    ClientError,
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
        let admin: AdminClient<DefaultClientContext> =
            settings
                .client_config()
                .create()
                .map_err(|source| ClientError {
                    purpose: "topics",
                    source,
                })?;
        let settings = Arc::new(settings);
        let (ready, topics_ready) = watch::channel(false);
        let token = shutdown.token();
        let kafka = Self {
            settings: Arc::clone(&settings),
            topics_ready,
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
                        // Nobody left to hear it is fine: the service is going away.
                        let _ = ready.send(true);
                        // The sender stays until the end, so that waiting for it never fails early.
                        token.cancelled().await;
                        return;
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

    /// Waits until the topics are known to be there. Returns false if the service stops before.
    pub async fn ready(&self) -> bool {
        self.topics_ready
            .clone()
            .wait_for(|ready| *ready)
            .await
            .is_ok()
    }
}
