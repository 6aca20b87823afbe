//! Reads the older part of the topic of keys again, in the background, after the newer part. Look-ups of known keys
//! need not wait for it. Conclusions from a missing key must wait.

use std::time::Duration;

use tandem_model::message::{Message, Position};
use tandem_runtime::backoff::Backoff;

use super::{CATCH_UP, KeyRing, reading::with_ready};
use crate::{
    claims::CLAIM,
    log::{Arrival, Attention},
    store::StoreError,
};

/// The pauses while Kafka is unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

impl KeyRing {
    /// Reads the older part in the background.
    pub(super) fn start_older(&self) {
        let (ring, shutdown) = (self.clone(), self.0.shutdown.clone());
        self.0.shutdown.spawn(async move {
            let reading = shutdown.retry(
                BACKOFF,
                || ring.read_older(),
                |error, pause| {
                    tracing::warn!(%error, ?pause, "data keys that were read before this start cannot be read again yet; trying again");
                },
            );
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                _ = reading => {}
            }
        });
    }

    async fn read_older(&self) -> Result<(), StoreError> {
        // The newer part goes first.
        self.read_on().await?;
        let left = self.held().older_left();
        if left.is_empty() {
            self.step();
            return Ok(());
        }
        let log = self.0.log.tail(self.0.topic, &left, Attention::Prompt);
        let log = log.map_err(|error| self.away(&error))?;
        loop {
            let arrival = tokio::select! {
                biased;
                () = self.read_older_part() => return Ok(()),
                arrival = log.next() => arrival.map_err(|error| self.away(&error))?,
            };
            with_ready(arrival, log.as_ref()).for_each(|arrival| self.arrived_of_older(&arrival));
            self.step();
            tokio::task::yield_now().await;
        }
    }

    fn arrived_of_older(&self, arrival: &Arrival) {
        match arrival {
            Arrival::Record(message) => {
                let Position { partition, offset } = message.position;
                self.take_of_older(message);
                // Only after it is applied, because from then on it counts as read.
                self.held().reached_in_older(partition, offset + 1);
            }
            Arrival::End(partition) => self.held().reached_in_older(*partition, i64::MAX),
        }
    }

    fn take_of_older(&self, message: &Message) {
        let mut held = self.held();
        // Another tail may have read further, or the whole topic is read again.
        if !held.is_older_unread(message.position) {
            return;
        }
        let key = message.key.as_deref();
        if key.is_some_and(|key| key.starts_with(CLAIM)) {
            held.finds_claim(message);
            return;
        }
        self.judge_and_take(held, message);
    }

    /// Waits until the older part is read, if there is one.
    pub(super) async fn read_older_part(&self) {
        let mut steps = self.0.steps.subscribe();
        // The sender lives as long as this ring.
        drop(steps.wait_for(|_| !self.held().has_older_left()).await);
    }

    /// Waits until the older part is read and judged, if there is one.
    pub(super) async fn older_part_judged(&self) {
        let mut steps = self.0.steps.subscribe();
        drop(steps.wait_for(|_| self.held().older.is_none()).await);
    }

    /// Waits until the position at which to begin is known.
    pub(super) async fn begun(&self) -> Result<(), StoreError> {
        let mut is_begun = self.0.is_begun.subscribe();
        let begun = is_begun.wait_for(|is_begun| *is_begun);
        match self.0.shutdown.clock().timeout(CATCH_UP, begun).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Unavailable(format!(
                "{}: how far it was read before is still being found out",
                self.0.topic
            ))),
        }
    }

    /// Reads the whole topic from its beginning after all, and discards what was remembered about it.
    pub(super) fn begin_again(&self, why: &str) {
        {
            let mut held = self.held();
            if !held.begins_behind {
                return;
            }
            held.read_again();
        }
        tracing::info!(
            topic = self.0.topic,
            why,
            "the topic of keys is read from its beginning"
        );
        self.0.begins_again.notify_one();
    }
}
