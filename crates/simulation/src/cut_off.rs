//! Subscribers that begin while a deposed primary of orders does not know that it is deposed, and orders change on the
//! new primary. By chance alone, the two coincide too rarely.

use std::time::Duration;

use futures::future::join_all;

use crate::{
    clients::{Client, Known},
    history::History,
    subscribers,
    system::System,
};

/// After this time there is another primary.
const AWAY: Duration = Duration::from_millis(10);
/// How long the old primary does not know that it is deposed.
const LINGERS: Duration = Duration::from_secs(10);
/// The number of clients that place and advance orders meanwhile, and how many times each does.
const CLIENTS: usize = 6;
const CHANGES: usize = 3;
/// The number of subscribers that begin, and the pauses between them.
const SUBSCRIBERS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Cuts off the primary of orders. It only does so if there are several instances, which may reach different primaries.
pub async fn subscribe_behind_it(system: &System, history: &History, known: &Known) {
    if system.orders.is_embedded() || system.orders_slots.len() < 2 {
        return;
    }
    let world = &system.world;
    world.note(|| "the primary of orders is cut off".to_owned());
    system.orders.depose(AWAY, LINGERS);
    let clients = (0..CLIENTS).map(|number| {
        let client = Client::new(system, history, known, &format!("d{number}"));
        world.task(async move {
            for change in 0..CHANGES {
                let mark = format!("d{number}x{change}");
                client.place(&mark).await;
                client.advance(&mark).await;
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..SUBSCRIBERS {
        world.sleep(PAUSE).await;
        world.spawn(subscribers::follow_orders(system.clone(), history.clone()));
    }
    world.sleep(LINGERS).await;
    join_all(clients).await;
}
