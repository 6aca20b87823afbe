//! The reads of clients, and the violations that a read shows at once.

use std::time::Duration;

use tandem_event_path::store::ChangesRequest;
use tandem_model::aggregate::Aggregate;
use tandem_orders::{consistency::Of, replica::Waited};
use tandem_runtime::consistency::{Kind, Written};

use super::Client;
use crate::{chance::draw, history::Acknowledged};

impl Client {
    /// The newest revision of a customer that was acknowledged before a time.
    fn newest_before(&self, id: &str, time: u64) -> Option<i64> {
        let events = self.history.events();
        let acknowledged = events.customers.iter();
        acknowledged
            .filter(|it| it.id == id && it.at < time)
            .map(|it| it.revision)
            .max()
    }

    /// Reads a customer from orders, and from accounts. The answer of accounts must not be older than what was
    /// acknowledged before the read. If a deposed primary answered, it must not be older than what was acknowledged
    /// before that primary was cut off.
    pub(super) async fn read(&self) {
        let Some(id) = self.known.customer() else {
            return;
        };
        let asked_at = self.system.world.elapsed();
        let newest = self.newest_before(&id, asked_at).unwrap_or(1);
        self.asked();
        let (ids, slots) = (vec![id.clone()], &self.system.accounts_slots);
        let asked = self.system.ask(slots, move |accounts| async move {
            let found = accounts.store.get_many(&ids).await;
            (found, accounts.database.cut_off_since(asked_at))
        });
        if let Some((Ok(found), cut_off)) = asked.await {
            let revision = found
                .into_iter()
                .flatten()
                .map(|it| it.state.revision())
                .next();
            let least = match cut_off {
                None => newest,
                Some(since) => self.newest_before(&id, since).unwrap_or(0).min(newest),
            };
            if revision.unwrap_or(0) < least {
                let said = "was acknowledged, and accounts shows";
                self.history
                    .violated(format!("{id} {least} {said} {revision:?}"));
            }
        }
        self.read_at_least(&id, newest).await;
    }

    /// Reads an order and its history with a consistency token, on any instance.
    pub(super) async fn read_own(&self) {
        let own = {
            let events = self.history.events();
            let orders: Vec<Acknowledged> = events.orders.iter().cloned().collect();
            draw(|chance| chance.pick(&orders).cloned())
        };
        let Some(Acknowledged { id, revision, .. }) = own else {
            return;
        };
        self.asked();
        let (wanted, slots) = (id.clone(), &self.system.orders_slots);
        let asked = self.system.ask(slots, move |orders| async move {
            let written = Written {
                kind: Kind::Order,
                id: wanted.clone(),
                revision,
            };
            let behind = (orders.shows)(vec![written], Of::StateAndAudit).await;
            if !behind.is_empty() {
                return None;
            }
            let request = ChangesRequest {
                subject: wanted.clone(),
                after_revision: 0,
                limit: 1_000,
            };
            let changes = orders.changes.changes(&[request]).await.ok()?.pop()?;
            let found = orders.store.get_many(&[wanted]).await.ok()?.pop()??;
            let audited = changes.last().map(|change| change.revision);
            Some((found.state.revision, audited))
        });
        if let Some(Some((stored, audited))) = asked.await {
            self.answered("read", &id, stored);
            if stored < revision || audited.is_none_or(|audited| audited < revision) {
                self.history.violated(format!(
                    "{id} {revision} was written, and its token gave {stored}, {audited:?} in the audit trail"
                ));
            }
        }
    }

    /// Reads a customer from orders at a revision or a newer one.
    pub(super) async fn read_at_least(&self, id: &str, revision: i64) {
        self.asked();
        let (wanted, slots) = (id.to_owned(), &self.system.orders_slots);
        let asked = self.system.ask(slots, move |orders| async move {
            let limit = Duration::from_secs(2);
            orders
                .replica
                .wait_for_revision(&wanted, revision, limit)
                .await
        });
        if let Some(Ok(Waited::Arrived(customer))) = asked.await {
            self.answered("read", id, customer.revision);
            if customer.revision < revision || customer.id != id {
                let said = "was asked for, and the replica gave";
                self.history
                    .violated(format!("{id} {revision} {said} {}", customer.revision));
            }
        }
    }
}
