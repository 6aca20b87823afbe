//! The requests that one and two instances get: creations, reads and lists of each role.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    ROUND,
    shared::{LeanClient, call_times},
    support::graph::{CREATE, PLACE, customer_input, order_input},
};

/// Requests in flight in total, whether one or two instances answer.
const IN_FLIGHT: usize = 128;
/// Customers that are read.
pub const CUSTOMERS: usize = 500;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An id that no customer has yet.
pub fn next_id() -> String {
    format!("more-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An existing customer that has an order.
pub fn known(number: usize) -> String {
    format!("scale-{:03}", number % CUSTOMERS)
}

/// One kind of request.
pub struct Load {
    pub what: &'static str,
    query: &'static str,
    variables: fn(usize) -> Value,
}

/// A service, and the requests that it gets.
pub struct Role {
    pub name: &'static str,
    /// Its subcommand.
    pub service: &'static str,
    pub loads: [Load; 3],
}

fn new_customer(_: usize) -> Value {
    json!({"input": customer_input(&next_id(), "Lovelace")})
}

fn new_order(number: usize) -> Value {
    json!({"input": order_input(&known(number))})
}

fn of_known(number: usize) -> Value {
    json!({"id": known(number)})
}

fn nothing(_: usize) -> Value {
    json!({})
}

const PAGE: &str = "{ customers(first: 20) { nodes { id revision name { lastName } } } }";

pub static ROLES: [Role; 3] = [
    Role {
        name: "accounts",
        service: "accounts",
        loads: [
            Load {
                what: "createCustomer",
                query: CREATE,
                variables: new_customer,
            },
            Load {
                what: "customer(id)",
                query: "query($id: ID!) { customer(id: $id) { id revision name { lastName } } }",
                variables: of_known,
            },
            Load {
                what: "customers(first: 20)",
                query: PAGE,
                variables: nothing,
            },
        ],
    },
    Role {
        name: "orders",
        service: "orders",
        loads: [
            Load {
                what: "placeOrder",
                query: PLACE,
                variables: new_order,
            },
            Load {
                what: "orderingCustomer(id)",
                query: "query($id: ID!) { orderingCustomer(id: $id) { id name { lastName } } }",
                variables: of_known,
            },
            Load {
                what: "orders(customerId, first: 20)",
                query: "query($id: ID!) { orders(customerId: $id, first: 20) { nodes { id status total } } }",
                variables: of_known,
            },
        ],
    },
    Role {
        name: "gateway",
        service: "router",
        loads: [
            Load {
                what: "createCustomer",
                query: CREATE,
                variables: new_customer,
            },
            Load {
                what: "customer(id) with orders",
                query: "query($id: ID!) { customer(id: $id) {
                    id revision name { lastName } orders(first: 3) { nodes { id status total } } } }",
                variables: of_known,
            },
            Load {
                what: "customers(first: 20)",
                query: PAGE,
                variables: nothing,
            },
        ],
    },
];

impl Load {
    /// A round at these addresses, with the same number of requests to each. Returns the number of answers, and answers
    /// per second.
    pub fn run(&self, runtime: &Runtime, urls: &[String]) -> (u64, f64) {
        let clients = urls.iter().map(|url| LeanClient::new(url, self.query));
        let clients: Arc<Vec<LeanClient>> = Arc::new(clients.collect());
        let variables = self.variables;
        let begun = std::time::Instant::now();
        let times = call_times(runtime, IN_FLIGHT, ROUND, move |number| {
            let clients = Arc::clone(&clients);
            async move {
                let client = &clients[number % clients.len()];
                client.ask(variables(number)).await;
            }
        });
        let answers = times.len() as f64;
        (times.len() as u64, answers / begun.elapsed().as_secs_f64())
    }
}
