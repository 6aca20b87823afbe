//! A MongoDB and a Kafka, for a system that uses both.

use crate::{Error, Kafka, KafkaOptions, Mongo};

/// One node of MongoDB, and a Kafka. Both end when it is dropped.
#[derive(Debug)]
pub struct Servers {
    /// A replica set of one node.
    pub mongo: Mongo,
    /// A cluster with the given options.
    pub kafka: Kafka,
}

impl Servers {
    /// Starts both in parallel, because each start has idle phases.
    ///
    /// # Errors
    /// Like [`Mongo::start`] and [`Kafka::start`].
    pub async fn start(options: KafkaOptions) -> Result<Self, Error> {
        let (mongo, kafka) = tokio::join!(Mongo::start(1), Kafka::start(options));
        Ok(Self {
            mongo: mongo?,
            kafka: kafka?,
        })
    }
}
