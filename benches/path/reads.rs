//! What each documented route and the usual queries cost, at the service and through the gateway, beside two floors: a
//! bare HTTP server that sends the same bytes, and the bare driver reading the one document that the response is made
//! from.
//!
//! With one request in flight the p50 shows waiting; with 64 the rate shows work.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::header,
    routing::get,
};
use mongodb::{
    Client, Collection,
    bson::{RawDocumentBuf, doc},
};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    report::{self, Bars, say},
    shared::{LeanClient, call_times, median, percentile},
    support::{
        self, Tandem,
        graph::{CREATE, PLACE, SAMPLE_BODY, customer_input, order_input},
    },
    visible::through,
};

/// An odd number, for the median.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(700);
const CUSTOMERS: usize = 500;

const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) {
    id name { firstName lastName } contact { email primaryPhone } addresses { type city postalCode } revision } }";
const ORDERING: &str = "query($id: ID!) { orderingCustomer(id: $id) {
    id name { firstName lastName } contact { email } addresses { type city postalCode } replica { revision } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) {
    id status total revision items { quantity product { guid title price } } } }";
const ORDERS: &str =
    "query($id: ID!) { orders(customerId: $id, first: 20) { nodes { id status total } } }";

/// The customers that are read.
pub fn known_customer(number: usize) -> String {
    format!("read-{number:04}")
}

/// How a route is called.
#[derive(Clone, Copy)]
enum Ask {
    /// GET of this path.
    Get(&'static str),
    /// GET of this path followed by a customer's id.
    GetOf(&'static str),
    /// POST of the documented body to this path.
    Post(&'static str),
    /// A query with a customer's id.
    OfCustomer(&'static str),
    /// A query with an order's id.
    OfOrder(&'static str),
}

/// A route, its service, and the field and collection by which the driver reads the document of the response.
struct Route {
    name: &'static str,
    service: &'static str,
    ask: Ask,
    read: Option<(&'static str, &'static str)>,
}

const ROUTES: [Route; 7] = [
    Route {
        name: "GET /accounts/customer/print",
        service: "accounts",
        ask: Ask::Get("/accounts/customer/print"),
        read: None,
    },
    Route {
        // The same document each time, so the service reads it and finds it unchanged.
        name: "POST /accounts/customer/create, the same again",
        service: "accounts",
        ask: Ask::Post("/accounts/customer/create"),
        read: Some(("customer.accounts", "_id")),
    },
    Route {
        name: "GET /orders/order/{id}",
        service: "orders",
        ask: Ask::GetOf("/orders/order/"),
        read: Some(("customer.orders", "_id")),
    },
    Route {
        name: "customer(id)",
        service: "accounts",
        ask: Ask::OfCustomer(CUSTOMER),
        read: Some(("customer.accounts", "_id")),
    },
    Route {
        name: "orderingCustomer(id)",
        service: "orders",
        ask: Ask::OfCustomer(ORDERING),
        read: Some(("customer.orders", "_id")),
    },
    Route {
        name: "order(id)",
        service: "orders",
        ask: Ask::OfOrder(ORDER),
        read: Some(("order.orders", "_id")),
    },
    Route {
        name: "orders(customerId)",
        service: "orders",
        ask: Ask::OfCustomer(ORDERS),
        read: Some(("order.orders", "state.customerId")),
    },
];

/// One route at one address, ready to be called.
#[derive(Clone)]
struct Asking {
    client: Arc<LeanClient>,
    ask: Ask,
    orders: Arc<Vec<String>>,
}

impl Asking {
    async fn once(&self, number: usize) -> Vec<u8> {
        match self.ask {
            Ask::Get(path) => self.client.get(path).await,
            Ask::GetOf(path) => {
                let id = known_customer(number % CUSTOMERS);
                self.client.get(&format!("{path}{id}")).await
            }
            Ask::Post(path) => self.client.post(path, SAMPLE_BODY).await,
            Ask::OfCustomer(_) => {
                let id = known_customer(number % CUSTOMERS);
                self.client.ask(json!({ "id": id })).await
            }
            Ask::OfOrder(_) => {
                let id = &self.orders[number % CUSTOMERS];
                self.client.ask(json!({ "id": id })).await
            }
        }
    }
}

/// The p50 in microseconds, and calls per second.
#[derive(Clone, Copy, Default)]
struct Measured {
    p50: f64,
    rate: f64,
}

fn run<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    in_flight: usize,
    work: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Measured {
    let begun = Instant::now();
    let mut times = call_times(runtime, in_flight, ROUND, work);
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Measured {
        p50: percentile(&times, 0.5),
        rate,
    }
}

/// A bare HTTP server on its own threads that responds with given bytes.
struct Floor {
    url: String,
    answers: Arc<Mutex<HashMap<usize, Bytes>>>,
    _runtime: Runtime,
}

impl Floor {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let answers: Arc<Mutex<HashMap<usize, Bytes>>> = Arc::default();
        let answer = async |State(answers): State<Arc<Mutex<HashMap<usize, Bytes>>>>,
                            Path(route): Path<usize>,
                            _body: Bytes| {
            let answer = answers.lock().unwrap()[&route].clone();
            ([(header::CONTENT_TYPE, "application/json")], answer)
        };
        let app = Router::new()
            .route("/{route}", get(answer).post(answer))
            .with_state(Arc::clone(&answers));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            let listener = axum::serve::ListenerExt::tap_io(listener, |connection| {
                connection.set_nodelay(true).unwrap();
            });
            axum::serve(listener, app).await.unwrap();
        });
        Self {
            url,
            answers,
            _runtime: runtime,
        }
    }
}

/// Makes customers with an order each. Returns the orders' ids.
fn prepare(runtime: &Runtime, tandem: &Tandem) -> Vec<String> {
    let accounts = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    let orders = LeanClient::new(&tandem.orders_url("/graphql"), PLACE);
    runtime.block_on(async {
        for number in 0..CUSTOMERS {
            let input = customer_input(&known_customer(number), "Lovelace");
            accounts.ask(json!({"input": input})).await;
        }
        let sample = LeanClient::plain(&tandem.accounts_url(""));
        sample.post("/accounts/customer/create", SAMPLE_BODY).await;
    });
    through(tandem);
    runtime.block_on(async {
        let mut ids = Vec::new();
        for number in 0..CUSTOMERS {
            let input = order_input(&known_customer(number));
            let answer = orders.ask(json!({"input": input})).await;
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            let id = &answer["data"]["placeOrder"]["order"]["id"];
            ids.push(id.as_str().unwrap().to_owned());
        }
        ids
    })
}

/// Measures all routes and prints one table.
pub fn measure(runtime: &Runtime, tandem: &Tandem, bare: Option<&Client>) {
    let mut waits = Vec::new();
    let orders = Arc::new(prepare(runtime, tandem));
    tandem.published(&support::Client::new());
    let floor = Floor::start();
    say!(
        "\nreads: p50 in µs at 1 in flight, rate at 64; HTTP is a bare server with the same answer, find_one the bare driver"
    );
    say!(
        "{:<52} {:>7} {:>7} {:>9} {:>6} | {:>8} {:>8} {:>9} {:>6}",
        "",
        "p50",
        "HTTP",
        "find_one",
        "ratio",
        "/s",
        "HTTP",
        "find_one",
        "ratio"
    );
    for (number, route) in ROUTES.iter().enumerate() {
        for place in ["service", "gateway"] {
            let base = match (place, route.service) {
                ("gateway", _) => tandem.gateway_url(""),
                (_, "accounts") => tandem.accounts_url(""),
                _ => tandem.orders_url(""),
            };
            let client = match route.ask {
                Ask::OfCustomer(query) | Ask::OfOrder(query) => {
                    LeanClient::new(&format!("{base}/graphql"), query)
                }
                _ => LeanClient::plain(&base),
            };
            let asking = Asking {
                client: Arc::new(client),
                ask: route.ask,
                orders: Arc::clone(&orders),
            };
            let sample = runtime.block_on(asking.once(0));
            floor.answers.lock().unwrap().insert(number, sample.into());
            let collection = bare.zip(route.read).map(|(bare, (name, field))| {
                (bare.database(route.service).collection(name), field)
            });
            let at = |in_flight| {
                let rounds: Vec<[Measured; 3]> = (0..ROUNDS)
                    .map(|_| round(runtime, in_flight, &asking, &floor, number, &collection))
                    .collect();
                rounds
            };
            let name = format!("{} ({place})", route.name);
            let [p50, http, read] = show(&name, &at(1), &at(64));
            waits.push((name, vec![p50, http + read]));
        }
    }
    let (chart, floor) = match bare {
        Some(_) => ("reads", "a bare HTTP server, then the driver's find_one"),
        None => ("reads-embedded", "a bare HTTP server"),
    };
    report::bars(
        chart,
        &Bars {
            title: "Reads: p50 at one request in flight",
            unit: "µs",
            series: &["Tandem", floor],
            groups: waits,
        },
    );
    say!(
        "ratio of p50: to HTTP and find_one one after the other; of the rate: to find_one, or HTTP where nothing is read"
    );
}

/// Tandem and the floors, one after the other.
fn round(
    runtime: &Runtime,
    in_flight: usize,
    asking: &Asking,
    floor: &Floor,
    number: usize,
    collection: &Option<(Collection<RawDocumentBuf>, &'static str)>,
) -> [Measured; 3] {
    let ours = asking.clone();
    let ours = run(runtime, in_flight, move |number| {
        let asking = ours.clone();
        async move { drop(asking.once(number).await) }
    });
    let client = Arc::new(LeanClient::plain(&floor.url));
    let posts = !matches!(asking.ask, Ask::Get(_) | Ask::GetOf(_));
    let http = run(runtime, in_flight, move |_| {
        let client = Arc::clone(&client);
        async move {
            let path = format!("/{number}");
            if posts {
                client.post(&path, SAMPLE_BODY).await;
            } else {
                client.get(&path).await;
            }
        }
    });
    let read = collection.clone().map(|(collection, field)| {
        let asking = asking.clone();
        run(runtime, in_flight, move |number| {
            let (collection, asking) = (collection.clone(), asking.clone());
            async move {
                let id = match asking.ask {
                    Ask::OfOrder(_) => asking.orders[number % CUSTOMERS].clone(),
                    Ask::Post(_) => "123456".to_owned(),
                    _ => known_customer(number % CUSTOMERS),
                };
                let found = collection.find_one(doc! { field: &id }).await.unwrap();
                assert!(found.is_some(), "{id} is not there");
            }
        })
    });
    [ours, http, read.unwrap_or_default()]
}

/// Prints a row. Returns the p50 with one call in flight, of Tandem and of the floors.
fn show(name: &str, one: &[[Measured; 3]], many: &[[Measured; 3]]) -> [f64; 3] {
    let of = |rounds: &[[Measured; 3]], part: &dyn Fn(&[Measured; 3]) -> f64| {
        median(rounds.iter().map(part).collect())
    };
    let reads = one[0][2].rate > 0.0;
    let rate_floor = if reads { 2 } else { 1 };
    let p50 = [0, 1, 2].map(|part| of(one, &|round| round[part].p50));
    say!(
        "{name:<52} {:>7.0} {:>7.0} {:>9.0} {:>6.2} | {:>8.0} {:>8.0} {:>9.0} {:>6.2}",
        p50[0],
        p50[1],
        p50[2],
        of(one, &|round| round[0].p50 / (round[1].p50 + round[2].p50)),
        of(many, &|round| round[0].rate),
        of(many, &|round| round[1].rate),
        of(many, &|round| round[2].rate),
        of(many, &|round| round[0].rate / round[rate_floor].rate),
    );
    p50
}
