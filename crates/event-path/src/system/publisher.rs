//! A publisher that signs records. Records that are published at the same time share one signature.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use tandem_model::message::Position;
use tandem_runtime::shutdown::Shutdown;
use tokio::sync::{mpsc, oneshot};

use crate::{
    log::{PublishError, Publisher, Record},
    signing::{MOST_TOGETHER, SIGNATURE, Signatures},
};

/// The most records that wait to be signed.
const WAITING: usize = 4_096;

type Delivery = BoxFuture<'static, Result<Position, PublishError>>;

/// A record that outlives its caller.
struct Owned {
    topic: String,
    key: String,
    headers: Vec<(String, Vec<u8>)>,
    payload: Option<Vec<u8>>,
}

impl Owned {
    fn of(record: &Record<'_>) -> Self {
        Self {
            topic: record.topic.to_owned(),
            key: record.key.to_owned(),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            payload: record.payload.map(<[u8]>::to_vec),
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (&**name, (&**value).into()))
                .collect(),
            ..Record::new(&self.topic, &self.key, self.payload.as_deref())
        }
    }
}

/// A record that waits to be signed, and the caller that waits until it is sent.
struct Unsigned {
    record: Owned,
    leaf: [u8; 32],
    sent: oneshot::Sender<Result<Delivery, PublishError>>,
}

/// Signs records and sends them on in the same order.
#[derive(Debug)]
pub(super) struct SigningPublisher {
    publisher: Arc<dyn Publisher>,
    signatures: Signatures,
    queue: mpsc::Sender<Unsigned>,
}

impl SigningPublisher {
    /// Starts the task that signs for this publisher.
    pub(super) fn start(
        publisher: Arc<dyn Publisher>,
        signatures: Signatures,
        shutdown: &Shutdown,
    ) -> Arc<dyn Publisher> {
        let (queue, waiting) = mpsc::channel(WAITING);
        shutdown.spawn(sign(waiting, Arc::clone(&publisher), signatures.clone()));
        Arc::new(Self {
            publisher,
            signatures,
            queue,
        })
    }
}

/// Signs the waiting records together and sends them on. Ends when all senders are dropped.
async fn sign(
    mut waiting: mpsc::Receiver<Unsigned>,
    publisher: Arc<dyn Publisher>,
    signatures: Signatures,
) {
    let mut together = Vec::with_capacity(MOST_TOGETHER);
    while waiting.recv_many(&mut together, MOST_TOGETHER).await > 0 {
        let leaves: Vec<[u8; 32]> = together.iter().map(|unsigned| unsigned.leaf).collect();
        for (unsigned, signature) in together.drain(..).zip(signatures.sign(&leaves)) {
            let mut record = unsigned.record.record();
            record
                .headers
                .push((SIGNATURE, signature.into_bytes().into()));
            // The caller may have stopped waiting. The record is sent all the same.
            let _ = unsigned.sent.send(publisher.send(&record));
        }
    }
}

impl Publisher for SigningPublisher {
    fn send(&self, record: &Record<'_>) -> Result<Delivery, PublishError> {
        if !self.signatures.signs(record.topic) {
            return self.publisher.send(record);
        }
        let (sent, on_its_way) = oneshot::channel();
        let unsigned = Unsigned {
            leaf: Signatures::leaf(record),
            record: Owned::of(record),
            sent,
        };
        self.queue.try_send(unsigned).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                PublishError::Full("too many records wait to be signed".to_owned())
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        let delivery = async move { on_its_way.await.map_err(|_| stopping())??.await };
        Ok(delivery.boxed())
    }
}

fn stopping() -> PublishError {
    PublishError::Unavailable("the service is stopping".to_owned())
}
