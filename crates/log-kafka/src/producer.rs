//! A producer whose delivery reports are polled by a thread.
//!
//! The `FutureProducer` of rdkafka 0.39 polls for a tenth of a second at a time, and busy-waits in the last millisecond
//! of each. That takes one percent of a processor for each producer, even if nothing is published. Here the thread polls
//! for [`POLL`] at a time. A report that arrives meanwhile is delivered at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    client::Client,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseProducer, Producer as _, ProducerContext, PurgeConfig},
};
use tandem_event_path::log::Record;
use tandem_model::message::Position;
use tokio::sync::oneshot;

use crate::{link::Link, record};

/// How long one poll takes. A dropped producer closes its connections at the end of one.
///
/// librdkafka waits for whole milliseconds, and rdkafka busy-waits for the rest. The part of a millisecond is what
/// passes before the wait begins, so nearly no rest is left.
const POLL: Duration = Duration::from_micros(1_000_050);

/// The outcome of a record.
pub(crate) type Delivered = Result<Position, KafkaError>;

/// A producer. Clones share it.
#[derive(Clone)]
pub(crate) struct Producer(Arc<Polled>);

/// A producer that is polled until this is dropped.
struct Polled {
    client: Arc<BaseProducer<Reports>>,
    is_dropped: Arc<AtomicBool>,
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Release);
    }
}

impl Producer {
    /// Makes a producer that reports about its connections to this link.
    ///
    /// # Errors
    /// If librdkafka does not accept the configuration, or no thread can be started.
    pub(crate) fn new(config: &ClientConfig, link: Link) -> Result<Self, KafkaError> {
        let client: BaseProducer<Reports> = config.create_with_context(Reports(link))?;
        let (client, is_dropped) = (Arc::new(client), Arc::<AtomicBool>::default());
        let polled = (Arc::clone(&client), Arc::clone(&is_dropped));
        thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || poll(&polled.0, &polled.1))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self(Arc::new(Polled { client, is_dropped })))
    }

    /// Puts a record into the queue of this topic, which has the name that Kafka uses. The receiver gets the outcome.
    ///
    /// # Errors
    /// If the queue is full, or the record can never be published.
    pub(crate) fn send(
        &self,
        topic: &str,
        record: &Record<'_>,
    ) -> Result<oneshot::Receiver<Delivered>, KafkaError> {
        let (report, delivered) = oneshot::channel();
        let record = record::for_producer(topic, record, Box::new(report));
        let sent = self.0.client.send(record);
        sent.map(|()| delivered).map_err(|(error, _)| error)
    }

    /// The error after which this producer accepts no more records (KIP-360).
    pub(crate) fn fatal_error(&self) -> Option<(rdkafka::types::RDKafkaErrorCode, String)> {
        self.0.client.client().fatal_error()
    }

    /// The client, for questions about the cluster.
    pub(crate) fn client(&self) -> &Client<Reports> {
        self.0.client.client()
    }
}

fn poll(client: &BaseProducer<Reports>, is_dropped: &AtomicBool) {
    while !is_dropped.load(Ordering::Acquire) {
        client.poll(POLL);
    }
    // Whoever still waits for an outcome gets an error.
    client.purge(PurgeConfig::default().queue().inflight());
    client.poll(Duration::ZERO);
}

/// Passes delivery reports on to the senders, and everything else to the [`Link`].
pub(crate) struct Reports(Link);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Delivered>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        let delivered = match result {
            Ok(message) => Ok(Position {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        // The sender may have gone away.
        let _ = report.send(delivered);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_outcome_of_a_record_gets_an_error_when_its_producer_is_dropped() {
        let mut config = ClientConfig::new();
        // Nothing listens there.
        config.set("bootstrap.servers", "127.0.0.1:1");
        let producer = Producer::new(&config, Link::default()).unwrap();
        let record = Record::new("topic", "key", Some(b"{}"));
        let mut delivered = producer.send("topic", &record).unwrap();
        let clone = producer.clone();
        drop(producer);
        assert!(delivered.try_recv().is_err(), "a clone still has it");
        drop(clone);
        delivered.await.unwrap().unwrap_err();
    }
}
