//! The common parts of the feed of customers' changes and its subscriptions.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tandem_event_path::{data_keys::Opener, log::Offsets, store::StoreError};
use tandem_runtime::shutdown::Shutdown;

use super::{
    cursor,
    delivery::Delivery,
    log::{BACKOFF, Log, waits},
    recent::Recent,
    subscribers::Subscribers,
};
use crate::replica::{Replica, ReplicaCustomer, event, progress::Progress};

pub(super) const FEED: &str = "customers";

/// A change, as the feed delivers it to its listeners.
pub(super) struct Seen {
    /// The positions of the feed after this change.
    pub(super) positions: Arc<Offsets>,
    pub(super) change: Arc<Change>,
    pub(super) published_at: Option<DateTime<Utc>>,
    pub(super) delivery: Arc<Delivery>,
}

/// A change of a customer.
pub(super) enum Change {
    /// The customer after the change.
    Open(Arc<ReplicaCustomer>),
    /// A change that waits for its data key.
    Sealed(Box<event::CustomerChange>),
}

impl Change {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Open(customer) => &customer.id,
            Self::Sealed(change) => &change.id,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        match self {
            Self::Open(customer) => customer.revision,
            Self::Sealed(change) => change.revision,
        }
    }

    pub(super) fn changed_at(&self) -> DateTime<Utc> {
        match self {
            Self::Open(customer) => customer.changed_at.as_datetime(),
            Self::Sealed(change) => change.changed_at.as_datetime(),
        }
    }
}

/// The feed of customers' changes. Clones share the same state.
#[derive(Clone)]
pub struct CustomerFeed {
    pub(super) log: Arc<dyn Log>,
    pub(super) subscribers: Subscribers<Arc<Seen>>,
    pub(super) recent: Recent,
    pub(super) replica: Replica,
    pub(super) progress: Progress,
    pub(super) opener: Opener,
    pub(super) shutdown: Shutdown,
}

impl CustomerFeed {
    /// Opens a change. It retries for as long as no source of keys answers. If the key is missing, the change stays
    /// sealed, and only the listeners of this customer wait for it. `None` when the service stops.
    pub(super) async fn open(&self, change: event::CustomerChange) -> Option<Change> {
        let mut pauses = BACKOFF.pauses(self.shutdown.clock());
        loop {
            let pause = pauses.next_pause();
            match event::open(&self.opener, vec![change.clone()]).await {
                Ok(mut opened) => {
                    let opened = opened.pop()?.inspect_err(|unopened| waits(FEED, unopened));
                    return Some(match opened {
                        Ok(customer) => Change::Open(Arc::new(customer)),
                        Err(_) => Change::Sealed(Box::new(change)),
                    });
                }
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "live updates wait for data keys");
                }
            }
            if !self.shutdown.sleep(pause).await {
                return None;
            }
        }
    }

    /// The state of a customer in the replica.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn shown(&self, id: &str) -> Result<Shown, StoreError> {
        // The order of these reads matters. A change that the positions do not cover is heard from the feed. A change
        // that they cover is parked, or is in the state that is read last.
        let taken = self.progress.taken().await?;
        let set_aside = if taken.is_any_set_aside {
            self.progress.set_aside(id).await?
        } else {
            Offsets::new()
        };
        Ok(Shown {
            customer: self.replica.get(id).await?,
            taken: Some(taken.positions),
            set_aside,
        })
    }

    /// Where the log may have changes of a customer that the feed has passed and the replica did not show. Usually
    /// there are none.
    pub(super) fn missing(&self, id: &str, shown: &Shown, passed: &Offsets) -> Offsets {
        let mut from = shown.set_aside.clone();
        cursor::step_back(&mut from, &self.recent.newer(id, shown.revision()));
        if let Some(taken) = &shown.taken {
            cursor::step_back(&mut from, &self.recent.forgotten(taken, passed));
        }
        from
    }
}

/// The state of a customer in the replica, and the progress of the replica before that state was read.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) customer: Option<ReplicaCustomer>,
    /// Everything below these positions is in the state or is parked. `None` if the store could not be asked.
    taken: Option<Offsets>,
    /// The positions of this customer's first parked changes.
    set_aside: Offsets,
}

impl Shown {
    /// The customer's revision, or 0 if there is no customer.
    pub(super) fn revision(&self) -> i64 {
        self.customer.as_ref().map_or(0, |it| it.revision)
    }
}
