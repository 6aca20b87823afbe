//! The part of customers in replacing the sealing key. Their data keys are re-wrapped in the store and on the topic of
//! keys. Their cards are re-sealed in the store and in the log.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use futures::future::try_join_all;
use tandem_assembly::admin::rotation::{RewrappedPage, Rewraps};
use tandem_event_path::{
    data_keys::{DataKey, KeyRing},
    fault::{self, Fault},
    log_restore::LogRestore,
    sealing::Sealer,
    store::{AggregateStore, Filter, PageRequest, StoreError},
};
use tandem_model::aggregate::Aggregate;

use crate::{domain::Customer, encoding::EventEncoder, vault};

/// The number of customers that are processed together.
const PAGE: usize = 200;

/// The customers of a store, whose keys are on a topic.
pub struct RewrapCustomers {
    /// The customers.
    pub customers: Arc<dyn AggregateStore<Customer>>,
    /// Their data keys in the log.
    pub topic: KeyRing,
    /// Publishes customers again whose cards were re-sealed, because a rebuild uses the event that was published last.
    pub log: Arc<LogRestore<Customer, EventEncoder>>,
    /// The newest sealing key and the older ones.
    pub sealer: Sealer,
}

#[async_trait]
impl Rewraps for RewrapCustomers {
    fn name(&self) -> &'static str {
        "customers"
    }

    async fn rewrap_some(&self, after: Option<&str>) -> Result<RewrappedPage, StoreError> {
        let request = PageRequest {
            filter: Filter::all(),
            after: after.map(str::to_owned),
            limit: PAGE,
        };
        let pages = self.customers.pages(&[request]).await?;
        let customers: Vec<Customer> = pages.into_iter().flatten().collect();
        let mut page = RewrappedPage {
            looked_at: customers.len() as u64,
            last: customers.last().map(|customer| customer.id().to_owned()),
            ..RewrappedPage::default()
        };
        let (mut changed, mut with_cards) = (Vec::new(), Vec::new());
        for customer in &customers {
            match vault::resealed(&self.sealer, customer) {
                Ok(Some((customer, has_card))) => {
                    if has_card {
                        with_cards.push(customer.clone());
                    }
                    changed.push(customer);
                }
                Ok(None) => {}
                Err(_) => page.unopened.push(customer.id().to_owned()),
            }
        }
        // The log is written first. After an interruption the store then still shows the customer as not done.
        self.publish_states(&with_cards).await?;
        self.customers.restore(&changed).await?;
        let changed: HashSet<String> = changed.iter().map(|it| it.id().to_owned()).collect();
        page.rewrapped = changed.len() as u64;
        let published = self.publish_keys(&customers, &changed).await?;
        page.republished = published.difference(&changed).count() as u64;
        Ok(page)
    }
}

impl RewrapCustomers {
    /// Publishes customers again whose cards were re-sealed.
    async fn publish_states(&self, customers: &[Customer]) -> Result<(), StoreError> {
        if customers.is_empty() || fault::is_on(Fault::ResealedCardsNotTold) {
            return Ok(());
        }
        let ids: Vec<String> = customers.iter().map(|it| it.id().to_owned()).collect();
        let stored = self.customers.get_many(&ids).await?;
        // A pending event holds the cards as they were sealed before. If it were published after this one, it would be
        // the last event.
        if stored
            .iter()
            .flatten()
            .any(|stored| !stored.pending.is_empty())
        {
            let reason = "changes of customers are still to be published".to_owned();
            return Err(StoreError::Unavailable(reason));
        }
        let published = self.log.publish_states(customers).await;
        published
            .map(drop)
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// Publishes the stored key of each customer whose key on the topic is wrapped with an older key or was just
    /// changed.
    async fn publish_keys(
        &self,
        customers: &[Customer],
        changed: &HashSet<String>,
    ) -> Result<HashSet<String>, StoreError> {
        let ids: HashSet<String> = customers
            .iter()
            .filter(|customer| customer.data_key().is_some())
            .map(|customer| customer.id().to_owned())
            .collect();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let topic = self.topic.published(&ids).await?;
        let mut suspects: Vec<String> = topic
            .wrapped
            .iter()
            .filter(|(id, wrapped)| changed.contains(*id) || is_older(&self.sealer, wrapped, id))
            .map(|(id, _)| id.clone())
            .collect();
        suspects.sort_unstable();
        let stored = self.customers.get_many(&suspects).await?;
        let publishing = stored.iter().flatten().filter_map(|stored| {
            let id = stored.state.id();
            // A key that cannot be opened must not replace one that can.
            let wrapped = stored.state.data_key();
            let wrapped = wrapped.filter(|wrapped| is_newest(&self.sealer, wrapped, id))?;
            Some(async move {
                let sent = self.topic.publish(id, Some(wrapped)).await;
                sent.map(|()| id.to_owned())
                    .map_err(|error| StoreError::Unavailable(format!("the topic of keys: {error}")))
            })
        });
        let published = try_join_all(publishing).await?;
        Ok(published.into_iter().collect())
    }
}

/// Whether a key opens and is wrapped with a key other than the newest. A key that cannot be opened is not older: there
/// may be no better copy of it, and [`KeyHealing`](crate::keys::KeyHealing) decides about it.
fn is_older(sealer: &Sealer, wrapped: &str, id: &str) -> bool {
    matches!(DataKey::rewrap(sealer, wrapped, id), Ok(Some(_)))
}

/// Whether a key is wrapped with the newest key.
fn is_newest(sealer: &Sealer, wrapped: &str, id: &str) -> bool {
    matches!(DataKey::rewrap(sealer, wrapped, id), Ok(None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_that_does_not_open_is_neither_older_nor_the_newest() {
        let both = Sealer::replacing(&[8; 32], &[[7; 32]]);
        let wrapped_with = |key: [u8; 32]| DataKey::make(&Sealer::replacing(&key, &[]), "1").1;
        let judged = |wrapped: &str| {
            (
                is_older(&both, wrapped, "1"),
                is_newest(&both, wrapped, "1"),
            )
        };
        assert_eq!(judged(&wrapped_with([7; 32])), (true, false));
        assert_eq!(judged(&wrapped_with([8; 32])), (false, true));
        assert_eq!(judged(&wrapped_with([9; 32])), (false, false));
        assert_eq!(judged("forged"), (false, false));
    }
}
