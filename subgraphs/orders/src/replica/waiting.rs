//! The readers in this process that wait for a revision of a customer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::ReplicaCustomer;

/// The newest revision of a customer that has arrived. `None` until one does.
type Arrived = Option<Arc<ReplicaCustomer>>;

/// For each customer that a reader waits for, the newest revision that has arrived meanwhile.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    customers: Mutex<HashMap<String, watch::Sender<Arrived>>>,
}

/// A waiting reader. Dropping it ends the waiting.
#[derive(Debug)]
pub(super) struct Waiter {
    waiting: Arc<Waiting>,
    id: String,
    arrivals: watch::Receiver<Arrived>,
}

impl Waiting {
    /// Begins to wait for a customer.
    pub(super) fn join(self: &Arc<Self>, id: &str) -> Waiter {
        let arrivals = self
            .lock()
            .entry(id.to_owned())
            .or_insert_with(|| watch::channel(None).0)
            .subscribe();
        Waiter {
            waiting: Arc::clone(self),
            id: id.to_owned(),
            arrivals,
        }
    }

    /// Hands a customer that was written to the readers that wait for its revision or an older one.
    pub(super) fn arrived(&self, customer: &ReplicaCustomer) {
        if let Some(arrivals) = self.lock().get(&customer.id) {
            arrivals.send_if_modified(|newest| {
                let is_newer = revision(newest) < customer.revision;
                if is_newer {
                    *newest = Some(Arc::new(customer.clone()));
                }
                is_newer
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Arrived>>> {
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
    /// The customer at this revision or a newer one, when this process has written it since the waiting began. It does
    /// not return `None` while this waiter exists.
    pub(super) async fn arrival_of(&mut self, wanted: i64) -> Arrived {
        let arrived = self
            .arrivals
            .wait_for(|newest| revision(newest) >= wanted)
            .await;
        // Fails only if the sender is gone. The sender stays while a waiter exists.
        arrived.ok()?.clone()
    }
}

fn revision(arrived: &Arrived) -> i64 {
    arrived.as_ref().map_or(0, |customer| customer.revision)
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut customers = self.waiting.lock();
        // This waiter is still counted.
        if customers
            .get(&self.id)
            .is_some_and(|arrivals| arrivals.receiver_count() <= 1)
        {
            customers.remove(&self.id);
        }
    }
}
