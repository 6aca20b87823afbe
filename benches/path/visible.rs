//! Creations, and how soon they are visible in orders.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    rounds::load,
    shared::LeanClient,
    support::{
        Client, Tandem,
        graph::{CREATE, customer_input},
    },
};

/// Waits in orders until the customer is there.
pub const VISIBLE: &str = "query($id: ID!) { orderingCustomer(id: $id, minRevision: 1) { id } }";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An id that no customer has yet.
pub fn next_id() -> String {
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates one more customer each time.
pub fn creating(
    client: &Arc<LeanClient>,
) -> impl Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync + use<> {
    let client = Arc::clone(client);
    move || {
        let client = Arc::clone(&client);
        Box::pin(async move {
            let input = customer_input(&next_id(), "Lovelace");
            client.ask(json!({"input": input})).await;
        })
    }
}

/// Waits until everything that was created is in the replica.
pub fn through(tandem: &Tandem) {
    let asking = Client::new();
    tandem.published(&asking);
    tandem.customer(&asking, &next_id());
}

/// Milliseconds from the request of a creation until the customer is readable in orders, sorted.
pub fn create_to_visible(runtime: &Runtime, tandem: &Tandem, samples: usize) -> Vec<f64> {
    through(tandem);
    until_visible(runtime, tandem, 0..samples)
}

/// The same while this many others create customers.
pub fn create_to_visible_beside(
    runtime: &Runtime,
    tandem: &Tandem,
    in_flight: usize,
    others: &Arc<LeanClient>,
) -> Vec<f64> {
    std::thread::scope(|scope| {
        let others = scope.spawn(|| load(runtime, in_flight, creating(others)));
        let turns = std::iter::from_fn(|| (!others.is_finished()).then_some(()));
        until_visible(runtime, tandem, turns)
    })
}

fn until_visible<T>(
    runtime: &Runtime,
    tandem: &Tandem,
    turns: impl Iterator<Item = T>,
) -> Vec<f64> {
    let accounts = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    let orders = LeanClient::new(&tandem.orders_url("/graphql"), VISIBLE);
    let mut times: Vec<f64> = turns
        .map(|_| {
            runtime.block_on(async {
                let id = next_id();
                let begun = Instant::now();
                let input = customer_input(&id, "Lovelace");
                accounts.ask(json!({"input": input})).await;
                orders.ask(json!({"id": id})).await;
                begun.elapsed().as_secs_f64() * 1_000.0
            })
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}
