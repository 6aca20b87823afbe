//! The replacement of signing keys, as by an operator who has lost the old keys or fears that somebody else has them.
//! All instances are stopped. Then each service is started once with a new key and the order to go on with it, and
//! after that without the order.

use std::time::Duration;

use futures::future::join_all;
use tandem_event_path::signing::Signer;

use crate::{
    clients::{Client, Known},
    history::History,
    system::{System, signing_key},
};

/// Within this time, everything on its way to the log has arrived. No instance may still publish with the old key:
/// records that it writes after the end that the topics had at the replacement are ignored.
const ON_ITS_WAY: Duration = Duration::from_secs(20);
/// Longer than an instance takes to stop.
const STOPPED: Duration = Duration::from_secs(3);
/// Longer than a service takes to claim the topics when nothing goes wrong.
const CLAIMED: Duration = Duration::from_secs(20);
/// The number of clients that come afterwards, and the number of requests of each.
const CLIENTS: usize = 2;
const REQUESTS: usize = 6;

/// Replaces the signing keys of both services, when there are no more faults and everything is at rest. Then clients go
/// on with the existing data. Returns what was not achieved.
pub async fn replace(system: &System, history: &History, known: &Known) -> Vec<String> {
    let world = &system.world;
    world.sleep(ON_ITS_WAY).await;
    // Orders is stopped too. It refuses records that are signed with an unknown key, and it accepts the new key only on
    // an operator's order.
    (0..system.accounts_slots.len()).for_each(|number| system.stop_accounts(number));
    (0..system.orders_slots.len()).for_each(|number| system.stop_orders(number));
    world.sleep(STOPPED + ON_ITS_WAY).await;
    world.note(|| "the signing keys are replaced".to_owned());
    system.replace_signing_keys();
    system.take_over_accounts(0);
    world.sleep(CLAIMED).await;
    system.take_over_orders(0);
    world.sleep(CLAIMED).await;
    // The order is given for one start only.
    system.stop_accounts(0);
    system.stop_orders(0);
    world.sleep(STOPPED).await;
    system.start_all();
    let clients = (0..CLIENTS).map(|number| {
        let client = Client::new(system, history, known, &format!("r{number}"));
        world.task(client.run(REQUESTS))
    });
    join_all(clients).await;
    unpinned(system)
}

/// The stores that still know a service by its old key.
fn unpinned(system: &System) -> Vec<String> {
    let pins = [
        (
            "accounts",
            "accounts",
            system.customers.look(|db| db.pinned("accounts")),
        ),
        (
            "orders",
            "accounts",
            system.orders.look(|db| db.pinned("accounts")),
        ),
        (
            "orders",
            "orders",
            system.orders.look(|db| db.pinned("orders")),
        ),
    ];
    let is_new = |service: &str, pinned: Option<&Signer>| {
        let newest = pinned.and_then(|signer| signer.keys.first());
        signing_key(service, true).is_ok_and(|key| newest == Some(key.verifying()))
    };
    pins.into_iter()
        .filter(|(_, service, pinned)| !is_new(service, pinned.as_ref()))
        .map(|(store, service, pinned)| {
            format!(
                "the store of {store} does not know {service} by its new signing key: {pinned:?}"
            )
        })
        .collect()
}
