//! How much of a processor orders uses for many watchers of many customers, with changes spread over the customers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    report::say,
    run,
    shared::{LeanClient, Processes},
    support::{
        Tandem,
        graph::{CREATE, PLACE, customer_input, order_input},
    },
    watchers::Watchers,
};

/// The watchers are spread evenly over this many customers.
const CUSTOMERS: usize = 1_000;
/// Changes per second.
const RATE: f64 = 100.0;
const TIME: Duration = Duration::from_secs(20);

fn customer(number: usize) -> String {
    format!("share-{}", number % CUSTOMERS)
}

pub fn measure(runtime: &Runtime, tandem: &Tandem, count: usize) {
    say!(
        "\n# {count} watchers of {CUSTOMERS} customers on orders, one socket each, {RATE} changes a second"
    );
    let accounts = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    run(runtime, async {
        for number in 0..CUSTOMERS {
            let input = customer_input(&customer(number), "Lovelace");
            accounts.ask(json!({"input": input})).await;
        }
    });
    let client = crate::support::Client::new();
    tandem.customer(&client, "behind-them");
    let orders = Arc::new(LeanClient::new(&tandem.orders_url("/graphql"), PLACE));
    let processes = Processes::new([("orders", tandem.child("orders").unwrap())]);
    let share = || {
        let (before, begun) = (processes.used()[0], Instant::now());
        let sent = run(runtime, changes(&orders));
        let took = begun.elapsed();
        let used = processes.used()[0] - before;
        say!("  {:.0} changes a second", sent as f64 / took.as_secs_f64());
        used / took.as_micros() as f64 * 100.0
    };
    let without = share();
    let watchers = Watchers::open(runtime, tandem.orders, count, 1, customer);
    let begun = Instant::now();
    let idle = processes.used()[0];
    std::thread::sleep(TIME);
    let idle = (processes.used()[0] - idle) / begun.elapsed().as_micros() as f64 * 100.0;
    let had = watchers.arrived();
    let with = share();
    let told = (watchers.arrived() - had) as f64 / TIME.as_secs_f64();
    say!(
        "orders: {with:.1} % of a processor, {told:.0} updates a second; {without:.1} % without watchers, {idle:.1} % with watchers and without changes"
    );
}

/// Makes changes at this rate for this time. Returns their number.
async fn changes(orders: &Arc<LeanClient>) -> usize {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / RATE));
    let mut sent = 0;
    while begun.elapsed() < TIME {
        ticks.tick().await;
        let orders = Arc::clone(orders);
        let input = order_input(&customer(sent));
        tokio::spawn(async move { orders.ask(json!({"input": input})).await });
        sent += 1;
    }
    sent
}
