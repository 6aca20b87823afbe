//! Retries one dead letter with the consumer that refused it, and reports the reason if it is refused again.

use std::sync::Arc;

use async_trait::async_trait;
use tandem_event_path::{
    log::{LogError, PublishError},
    projection::Projection,
    store::StoreError,
};
use tandem_model::message::{Message, Rejection};

/// Why a retry did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The message still cannot be processed.
    #[error("still refused: {0}")]
    Refused(#[from] Rejection),
    /// The store is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of the retry could not be written to the dead letter topic.
    #[error("Kafka is away: {0}")]
    Log(#[from] PublishError),
    /// The message is too large to be kept whole, and could not be read from its topic.
    #[error("the message cannot be read from its topic: {0}")]
    Read(#[from] LogError),
    /// The service is shutting down.
    #[error("the service is stopping")]
    Stopping,
}

/// Processes a dead letter again, in the same way as the consumer that refused it.
#[async_trait]
pub trait Retry: Send + Sync + 'static {
    /// The consumer's name, as in dead letters.
    fn consumer(&self) -> &'static str;

    /// The topic that it reads.
    fn topic(&self) -> &'static str;

    /// Processes the message again.
    ///
    /// # Errors
    /// If the message is still refused, or the store is unavailable.
    async fn retry(&self, message: Message) -> Result<(), RetryError>;
}

/// [`Retry`] by a projection.
#[derive(Debug)]
pub struct RetryProjection<P> {
    /// The projection.
    pub projection: Arc<P>,
    /// What it reads.
    pub topic: &'static str,
}

#[async_trait]
impl<P: Projection> Retry for RetryProjection<P> {
    fn consumer(&self) -> &'static str {
        self.projection.name()
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    async fn retry(&self, message: Message) -> Result<(), RetryError> {
        let item = self.projection.decode(&message)?;
        let keys = self.projection.keys(std::slice::from_ref(&item)).await?;
        // Nothing waits here for a missing data key: the letter is refused with the name of what is missing.
        let item = self
            .projection
            .open(item, &keys)
            .map_err(|unopened| Rejection::new(unopened.to_string()))?;
        Ok(self
            .projection
            .apply(vec![(message.position, item)])
            .await?)
    }
}
