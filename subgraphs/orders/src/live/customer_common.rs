//! What the feed of customers' changes and all its subscriptions have in common.

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

/// A change, as the feed hands it to its listeners.
pub(super) struct Seen {
    /// How far the feed had come with it.
    pub(super) positions: Arc<Offsets>,
    pub(super) change: Arc<Change>,
    pub(super) published_at: Option<DateTime<Utc>>,
    pub(super) delivery: Arc<Delivery>,
}

/// A change of a customer.
pub(super) enum Change {
    /// The customer as it was after it.
    Open(Arc<ReplicaCustomer>),
    /// It waits for its data key.
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

/// The feed of customers' changes. Clones share it.
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
    /// Opens a change, however long nobody can be asked for its key. It stays sealed when the key is not there: who listens to this
    /// customer waits for it, and nobody else. `None` when the service stops.
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

    /// What the replica shows of a customer.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn shown(&self, id: &str) -> Result<Shown, StoreError> {
        // Asked in this order, so that each change is below what was taken, or heard; set aside, or in what is read then.
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

    /// From where on the log may have changes of a customer that have passed and are not in what the replica showed: nowhere, most often.
    pub(super) fn missing(&self, id: &str, shown: &Shown, passed: &Offsets) -> Offsets {
        let mut from = shown.set_aside.clone();
        cursor::step_back(&mut from, &self.recent.newer(id, shown.revision()));
        if let Some(taken) = &shown.taken {
            cursor::step_back(&mut from, &self.recent.forgotten(taken, passed));
        }
        from
    }
}

/// What the replica shows of a customer, and how far it had come before it was asked.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) customer: Option<ReplicaCustomer>,
    /// Everything below these positions is in it, or set aside; `None` if the store could not tell.
    taken: Option<Offsets>,
    /// The first of this customer's changes that are set aside.
    set_aside: Offsets,
}

impl Shown {
    /// The customer's revision; 0 if there is none.
    pub(super) fn revision(&self) -> i64 {
        self.customer.as_ref().map_or(0, |it| it.revision)
    }
}
