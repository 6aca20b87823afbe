//! Callers that behave as documented: they send the token of their writes, give each write an idempotency key, and
//! retry what was not answered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    fleet::Fleet,
    graph::{ADVANCE, CREATE, PLACE, UPDATE, customer_input, order_input},
    poll,
    workload::{History, Random},
};

const READ: &str = "query($customer: ID!, $order: ID!) {
    customer(id: $customer) { revision name { lastName } }
    orderingCustomer(id: $customer) { replica { revision } }
    order(id: $order) { status revision } }";

const HEADER: &str = "tandem-consistency";
/// Codes after which a caller retries: a service is down, or lags behind, or limits the rate.
const ASK_AGAIN: [&str; 3] = ["UNAVAILABLE", "REPLICA_BEHIND", "RATE_LIMITED"];
/// Time limit of one attempt.
const TRY: Duration = Duration::from_secs(15);
/// How long a caller retries. A request without an answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two attempts: it begins with the first value and doubles up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The outcome of requests.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Requests, each counted once.
    pub sent: usize,
    /// Requests that were sent more than once.
    pub retried: usize,
    /// The reasons for retries, with their number.
    pub reasons: BTreeMap<String, usize>,
    /// The most attempts of one request.
    pub most_tries: usize,
    /// The longest time until a request was answered, with all its attempts.
    pub longest: Duration,
    /// Requests without a correct answer in the end.
    pub failed: Vec<String>,
}

/// The state that all callers share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    history: Mutex<History>,
    requests: Mutex<Requests>,
}

/// Running callers. They stop when they are finished.
pub struct Callers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Starts this many callers, at the port of the gateways.
    pub fn start(fleet: &Fleet, callers: u64, gateways: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let tasks = (0..callers)
            .map(|number| {
                let caller = Caller {
                    name: number,
                    http: reqwest::Client::new(),
                    url: format!("http://127.0.0.1:{gateways}/graphql"),
                    random: Random::new(number + 1),
                    shared: Arc::clone(&shared),
                    token: None,
                };
                fleet.runtime.spawn(caller.run())
            })
            .collect();
        Self { shared, tasks }
    }

    /// Waits until this many more requests are answered.
    #[track_caller]
    pub fn go_on(&self, more: u64) {
        let answered = || self.shared.history.lock().unwrap().acknowledged;
        let from = answered();
        poll(&format!("{more} more writes are answered"), || {
            (answered() >= from + more).then_some(())
        });
    }

    /// The outcome of the requests since the last call.
    pub fn requests(&self) -> Requests {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    /// Stops them after their current requests are answered.
    pub fn finish(&mut self, fleet: &Fleet) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            fleet.runtime.block_on(task).unwrap();
        }
        self.shared.history.lock().unwrap().clone()
    }
}

/// Why an attempt has no correct answer.
enum Refused {
    /// It may have been executed or not: the caller has to retry.
    AskAgain(String),
    /// A retry would not help.
    ForGood { code: String, said: String },
}

struct Caller {
    name: u64,
    http: reqwest::Client,
    url: String,
    random: Random,
    shared: Arc<Shared>,
    token: Option<String>,
}

impl Caller {
    async fn run(mut self) {
        let mut number = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            number += 1;
            // A failure is recorded, and the caller continues with the next customer.
            let _ = self
                .serve(&format!("rehearsal-{}-{number}", self.name))
                .await;
        }
    }

    /// Creates a customer, orders, renames the customer, and reads everything.
    async fn serve(&mut self, id: &str) -> Option<()> {
        self.note(|history| {
            history.sent_customers.insert(id.to_owned(), 1);
        });
        let mut input = customer_input(id, "Lovelace");
        input["idempotencyKey"] = json!(format!("create-{id}"));
        let created = self.ask(CREATE, json!({"input": input})).await?;
        self.keep_customer(&created["createCustomer"]["customer"], "Lovelace")?;

        self.note(|history| *history.sent_placings.entry(id.to_owned()).or_default() += 1);
        let mut input = order_input(id);
        input["idempotencyKey"] = json!(format!("order-{id}"));
        let placed = self.ask(PLACE, json!({"input": input})).await?;
        let order = self.keep_order(&placed["placeOrder"]["order"])?;

        let last = format!("L{}", self.random.next());
        self.note(|history| *history.sent_customers.entry(id.to_owned()).or_default() += 1);
        let input = json!({
            "name": {"firstName": "Ada", "lastName": last},
            "idempotencyKey": format!("rename-{id}"),
        });
        let renamed = self.ask(UPDATE, json!({"id": id, "input": input})).await?;
        self.keep_customer(&renamed["updateCustomer"]["customer"], &last)?;

        self.advance(&order).await?;

        let read = self
            .ask(READ, json!({"customer": id, "order": order}))
            .await?;
        let is_own = read["customer"]["revision"] == 2
            && read["customer"]["name"]["lastName"] == json!(last)
            && read["orderingCustomer"]["replica"]["revision"] == 2
            && read["order"] == json!({"status": "CONFIRMED", "revision": 2});
        if !is_own {
            self.failed(format!("{id} does not read what it wrote: {read}"));
        }
        Some(())
    }

    /// An advance has no idempotency key, but an expected revision. If it is refused because an earlier attempt was
    /// executed, the order shows that.
    async fn advance(&mut self, order: &str) -> Option<()> {
        self.note(|history| *history.sent_orders.entry(order.to_owned()).or_default() += 1);
        let variables = json!({"id": order, "to": "CONFIRMED"});
        match self.try_until_answered(ADVANCE, variables).await {
            Ok(data) => self.keep_order(&data["advanceOrder"]["order"]).map(|_| ()),
            Err((tries, code, _)) if tries > 1 && code == "INVALID_TRANSITION" => {
                let read = "query($id: ID!) { order(id: $id) { id status revision } }";
                let data = self.ask(read, json!({"id": order})).await?;
                if data["order"]["status"] != "CONFIRMED" {
                    self.failed(format!("{order} is not what was asked for: {data}"));
                }
                self.keep_order(&data["order"]).map(|_| ())
            }
            Err((_, _, said)) => {
                self.failed(said);
                None
            }
        }
    }

    /// Retries until there is an answer. `None` if there is no correct one, which is recorded as a failure.
    async fn ask(&mut self, query: &str, variables: Value) -> Option<Value> {
        match self.try_until_answered(query, variables).await {
            Ok(data) => Some(data),
            Err((_, _, said)) => {
                self.failed(said);
                None
            }
        }
    }

    /// The data. Or the number of attempts after which it failed, with the code and the message.
    async fn try_until_answered(
        &mut self,
        query: &str,
        variables: Value,
    ) -> Result<Value, (usize, String, String)> {
        let begun = Instant::now();
        let body = json!({"query": query, "variables": variables}).to_string();
        let (mut tries, mut pause) = (0, PAUSES.0);
        let mut reasons = Vec::new();
        let outcome = loop {
            tries += 1;
            let reason = match self.send(&body).await {
                Ok(data) => break Ok(data),
                Err(Refused::ForGood { code, said }) => break Err((tries, code, said)),
                Err(Refused::AskAgain(reason)) => reason,
            };
            reasons.push(reason.clone());
            if begun.elapsed() > PATIENCE {
                break Err((
                    tries,
                    String::new(),
                    format!("{tries} tries of {body}: {reason}"),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSES.1);
        };
        let mut requests = self.shared.requests.lock().unwrap();
        requests.sent += 1;
        requests.retried += usize::from(tries > 1);
        requests.most_tries = requests.most_tries.max(tries);
        requests.longest = requests.longest.max(begun.elapsed());
        for reason in reasons {
            *requests.reasons.entry(reason).or_default() += 1;
        }
        outcome
    }

    /// One attempt.
    async fn send(&mut self, body: &str) -> Result<Value, Refused> {
        let mut request = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .timeout(TRY)
            .body(body.to_owned());
        if let Some(token) = &self.token {
            request = request.header(HEADER, token);
        }
        let broke_off = |error: reqwest::Error| Refused::AskAgain(kind_of(&error).to_owned());
        let answer = request.send().await.map_err(broke_off)?;
        let status = answer.status();
        let token = answer.headers().get(HEADER);
        let token = token.and_then(|it| Some(it.to_str().ok()?.to_owned()));
        let text = answer.text().await.map_err(broke_off)?;
        let Ok(said) = serde_json::from_str::<Value>(&text) else {
            return Err(Refused::AskAgain(format!("status {status} without JSON")));
        };
        let code = match said["errors"].as_array() {
            Some(errors) => errors.iter().map(|it| it["extensions"]["code"].as_str()),
            None if said["data"].is_object() => {
                self.token = token.or(self.token.take());
                return Ok(said["data"].clone());
            }
            None => return Err(Refused::AskAgain(format!("status {status} without data"))),
        };
        let codes: Vec<&str> = code.map(Option::unwrap_or_default).collect();
        let is_passing = |code: &&str| ASK_AGAIN.contains(code);
        // All codes must be transient, because a permanent error does not go away.
        match codes.iter().find(|code| !is_passing(code)) {
            None => Err(Refused::AskAgain(codes.concat())),
            Some(code) => Err(Refused::ForGood {
                code: (*code).to_owned(),
                said: format!("{body}: {text}"),
            }),
        }
    }

    fn note(&self, note: impl FnOnce(&mut History)) {
        note(&mut self.shared.history.lock().unwrap());
    }

    fn failed(&self, said: String) {
        self.shared.requests.lock().unwrap().failed.push(said);
    }

    fn keep_customer(&self, customer: &Value, last: &str) -> Option<()> {
        let (Some(id), Some(revision)) = (customer["id"].as_str(), customer["revision"].as_i64())
        else {
            self.failed(format!("an answer without a customer: {customer}"));
            return None;
        };
        self.note(|history| {
            history.acknowledged += 1;
            history.customers.insert(id.to_owned(), revision);
            let name = (revision, last.to_owned());
            history.names.insert(id.to_owned(), name);
        });
        Some(())
    }

    fn keep_order(&self, order: &Value) -> Option<String> {
        let id = order["id"].as_str().map(str::to_owned);
        let (revision, status) = (order["revision"].as_i64(), order["status"].as_str());
        let (Some(id), Some(revision), Some(status)) = (id, revision, status) else {
            self.failed(format!("an answer without an order: {order}"));
            return None;
        };
        self.note(|history| {
            history.acknowledged += 1;
            if revision == 1 {
                history.sent_orders.insert(id.clone(), 1);
            }
            let known = (revision, status.to_owned());
            history.orders.insert(id.clone(), known);
        });
        Some(id)
    }
}

/// How an attempt broke off, in a few words.
fn kind_of(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "not connected"
    } else {
        "connection broken"
    }
}
