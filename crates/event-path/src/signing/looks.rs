//! Looks for a signer's new key before a record that names it is refused. The claim that announces the key and the
//! records that it signed are in different topics, so either may be read first.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tandem_runtime::clock::{Clock, Instant};
use tokio::sync::watch;

/// How long a record waits for a look.
const LIMIT: Duration = Duration::from_secs(5);
/// The most looks in one [`PERIOD`]. A writer to the topics can name any number of keys. Beyond this number its records
/// are refused at once.
const MOST: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// The looks that readers of records ask for, and that the reader of claims makes.
#[derive(Debug)]
pub(super) struct Looks {
    asked: watch::Sender<u64>,
    made: watch::Sender<u64>,
    spent: Mutex<Option<Spent>>,
}

/// The looks of one period.
#[derive(Clone, Copy, Debug)]
struct Spent {
    since: Instant,
    looks: u32,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            asked: watch::channel(0).0,
            made: watch::channel(0).0,
            spent: Mutex::default(),
        }
    }

    /// A receiver that gets each request for a look. Looks are made while such a receiver lives.
    pub(super) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Notes that a look was made which began after this request.
    pub(super) fn made(&self, asked: u64) {
        self.made.send_replace(asked);
    }

    /// Whether a look may be asked for now.
    pub(super) fn may_ask(&self, clock: &Clock) -> bool {
        if self.asked.receiver_count() == 0 {
            return false;
        }
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.is_none_or(|spent| spent.looks < MOST || clock.since(spent.since) >= PERIOD)
    }

    /// Asks for a look, and waits until it is made, 5 s at most. Callers who ask while a look is being made share the
    /// next one.
    pub(super) async fn ask(&self, clock: &Clock) {
        {
            let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
            match spent.as_mut() {
                Some(spent) if clock.since(spent.since) < PERIOD => spent.looks += 1,
                _ => {
                    *spent = Some(Spent {
                        since: clock.instant(),
                        looks: 1,
                    });
                }
            }
        }
        let mut made = self.made.subscribe();
        let mut mine = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        // After a timeout, the record is judged by what is known then.
        let _ = clock
            .timeout(LIMIT, made.wait_for(|made| *made >= mine))
            .await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_look_that_began_earlier_is_none_that_was_asked_for() {
        let (looks, clock) = (Arc::new(Looks::new()), Clock::default());
        assert!(!looks.may_ask(&clock), "nobody makes any");
        let mut asked = looks.asked();
        let first = tokio::spawn({
            let (looks, clock) = (Arc::clone(&looks), clock.clone());
            async move { looks.ask(&clock).await }
        });
        asked.changed().await.unwrap();
        let begun = *asked.borrow_and_update();
        let second = tokio::spawn({
            let (looks, clock) = (Arc::clone(&looks), clock.clone());
            async move { looks.ask(&clock).await }
        });
        asked.changed().await.unwrap();
        looks.made(begun);
        first.await.unwrap();
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        looks.made(*asked.borrow_and_update());
        second.await.unwrap();
    }

    #[tokio::test]
    async fn whoever_names_keys_without_end_is_not_looked_for_each_time() {
        let (looks, clock) = (Looks::new(), Clock::default());
        let _asked = looks.asked();
        looks.made(u64::MAX);
        for _ in 0..MOST {
            looks.ask(&clock).await;
        }
        assert!(!looks.may_ask(&clock));
    }
}
