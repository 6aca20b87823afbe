//! Those who wait in this process for a revision of a customer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// For each customer that somebody waits for, the newest revision that arrived meanwhile.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    customers: Mutex<HashMap<String, watch::Sender<i64>>>,
}

/// One who waits; leaves when dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    waiting: Arc<Waiting>,
    id: String,
    arrivals: watch::Receiver<i64>,
}

impl Waiting {
    /// Begins to wait for a customer.
    pub(super) fn join(self: &Arc<Self>, id: &str) -> Waiter {
        let arrivals = self
            .lock()
            .entry(id.to_owned())
            .or_insert_with(|| watch::channel(0).0)
            .subscribe();
        Waiter {
            waiting: Arc::clone(self),
            id: id.to_owned(),
            arrivals,
        }
    }

    /// Wakes those who wait for this revision or an older one.
    pub(super) fn arrived(&self, id: &str, revision: i64) {
        if let Some(arrivals) = self.lock().get(id) {
            arrivals.send_if_modified(|newest| {
                let newer = revision > *newest;
                *newest = revision.max(*newest);
                newer
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<i64>>> {
        self.customers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn customers(&self) -> usize {
        self.lock().len()
    }
}

impl Waiter {
    /// Returns when this revision or a newer one was written by this process since the waiting began.
    pub(super) async fn arrival_of(&mut self, revision: i64) {
        // Fails only when the sender is gone; it stays while a waiter is there.
        let _ = self.arrivals.wait_for(|newest| *newest >= revision).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut customers = self.waiting.lock();
        // This one still counts.
        if customers
            .get(&self.id)
            .is_some_and(|arrivals| arrivals.receiver_count() <= 1)
        {
            customers.remove(&self.id);
        }
    }
}
