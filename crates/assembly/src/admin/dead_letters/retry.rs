//! Retries one dead letter with the consumer that refused it, and says why it is refused again.

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
    /// The message still cannot be taken.
    #[error("still refused: {0}")]
    Refused(#[from] Rejection),
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of it could not be written to the dead letter topic.
    #[error("Kafka is away: {0}")]
    Log(#[from] PublishError),
    /// What is too large to be kept could not be read from its topic.
    #[error("the message cannot be read from its topic: {0}")]
    Read(#[from] LogError),
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
}

/// Takes a dead letter once more, as the consumer that refused it would.
#[async_trait]
pub trait Retry: Send + Sync + 'static {
    /// The consumer's name, as dead letters name it.
    fn consumer(&self) -> &'static str;

    /// The topic that it reads.
    fn topic(&self) -> &'static str;

    /// Takes it once more.
    ///
    /// # Errors
    /// When it is still refused, or the store is away.
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
        // Nobody is away: what is missing is named.
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
