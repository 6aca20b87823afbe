//! Authorization, tested on the real binary: tokens at the gateway and at both services, on every transport; scopes on
//! every field, route and command; events that each subscriber sees by its own rights; and long connections that end
//! with their token.

mod asked;
mod cells;
mod challenges;
mod clients;
mod commands;
mod consistency;
mod events;
mod expiry;
mod http;
mod open;
mod sockets;
mod subjects;
mod table;
mod tally;
mod tokens;
mod transports;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tandem_backends::free_port;

use self::tokens::Issuer;
use super::support::{Client, Process, Tandem, graph::CREATE, poll, tandem_command};

/// The customer that tokens with the scope `self` belong to. This text and those below occur in no other response, so
/// that a test can find them where they must not be.
const OWN: &str = "own-4711";
/// Another customer.
const OTHER: &str = "other-4711";
const LAST_NAME: &str = "Quillfeather";
const EMAIL: &str = "ada@quillfeather.example";
const PHONE: &str = "555-010-4711";
const STREET: &str = "4711 Heron Lane";
const NAME: &str = "query($id: ID!) { customer(id: $id) { id name { firstName } } }";
const CHANGES: &str = "query($id: ID!) { customer(id: $id) { changes { nodes { changedBy } } } }";
const ORDERS: &str = "{ orders(first: 100) { nodes { id customer { id } } } }";

/// A system that requires tokens, with two customers who have an order each.
struct World {
    tandem: Tandem,
    issuer: Issuer,
    admin: Client,
    own_order: String,
    other_order: String,
    counted: AtomicUsize,
}

impl World {
    fn start() -> Self {
        let tandem = Tandem::builder().flag("--auth").start();
        let issuer = Issuer::of(tandem.data_dir());
        let admin = Client::with_token(tandem.printed_token());
        for id in [OWN, OTHER] {
            let url = tandem.gateway_url("/graphql");
            admin.data(&url, CREATE, json!({"input": customer(id)}));
        }
        let place = |id: &str| {
            poll("orders knows the customer", || {
                let answer = admin.graphql(
                    &tandem.gateway_url("/graphql"),
                    PLACE,
                    json!({"input": order(id)}),
                );
                answer["data"]["placeOrder"]["order"]["id"]
                    .as_str()
                    .map(str::to_owned)
            })
        };
        let (own_order, other_order) = (place(OWN), place(OTHER));
        Self {
            tandem,
            issuer,
            admin,
            own_order,
            other_order,
            counted: AtomicUsize::new(0),
        }
    }

    /// Another number at each call.
    fn next(&self) -> usize {
        self.counted.fetch_add(1, Ordering::Relaxed)
    }

    fn gateway(&self) -> String {
        self.tandem.gateway_url("/graphql")
    }

    /// The base address of the gateway, or of a service.
    fn base(&self, port: &str) -> String {
        match port {
            "gateway" => self.tandem.gateway_url(""),
            "accounts" => self.tandem.accounts_url(""),
            "orders" => self.tandem.orders_url(""),
            other => panic!("there is no port of {other}"),
        }
    }

    /// Texts of this world that must be in no public response.
    fn secrets(&self) -> Vec<&str> {
        vec![
            LAST_NAME,
            EMAIL,
            PHONE,
            STREET,
            OWN,
            OTHER,
            self.own_order.as_str(),
            self.other_order.as_str(),
        ]
    }
}

const PLACE: &str =
    "mutation($input: PlaceOrderInput!) { placeOrder(input: $input) { order { id } } }";

fn customer(id: &str) -> Value {
    json!({
        "id": id,
        "name": {"firstName": "Ada", "lastName": LAST_NAME},
        "contact": {"primaryPhone": PHONE, "email": EMAIL},
        "addresses": [{"type": "SHIPPING", "address1": STREET, "city": "Springfield", "state": "IL", "postalCode": "62701"}],
    })
}

fn order(customer_id: &str) -> Value {
    json!({
        "customerId": customer_id,
        "items": [{"product": {"guid": "p-1", "title": "Hammer", "price": "12.50"}, "quantity": 1}],
    })
}

/// The code of the first error.
fn code(answer: &Value) -> Option<&str> {
    answer["errors"][0]["extensions"]["code"].as_str()
}

const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
const FORBIDDEN: &str = "FORBIDDEN";

/// The code among these with which a response, or a part of it, was refused. `None` if it was not.
fn verdict(answer: &Value) -> Option<&'static str> {
    let errors = answer["errors"].as_array()?;
    errors.iter().find_map(|error| {
        let code = error["extensions"]["code"].as_str()?;
        [UNAUTHENTICATED, FORBIDDEN]
            .into_iter()
            .find(|known| *known == code)
    })
}

#[test]
fn with_tokens_on_each_part_asks_for_them_and_a_customer_sees_what_is_theirs_alone() {
    let world = World::start();
    let ready = world.tandem.process.output();
    assert!(ready.contains("authentication on"), "{ready}");

    let nobody = Client::new();
    let own = Client::with_token(world.tandem.token(OWN, "self"));
    for url in [world.gateway(), world.tandem.accounts_url("/graphql")] {
        let refused = nobody.graphql(&url, NAME, json!({"id": OWN}));
        assert_eq!(code(&refused), Some("UNAUTHENTICATED"), "{refused}");
        assert_eq!(
            own.data(&url, NAME, json!({"id": OWN}))["customer"]["id"],
            OWN
        );
        let refused = own.graphql(&url, NAME, json!({"id": OTHER}));
        assert_eq!(code(&refused), Some("FORBIDDEN"), "{refused}");
        let all = own.data(&url, "{ customers { nodes { id } } }", json!({}));
        assert_eq!(all["customers"]["nodes"], json!([{"id": OWN}]));
    }
    for url in [world.gateway(), world.tandem.orders_url("/graphql")] {
        let orders = own.data(&url, ORDERS, json!({}));
        assert_eq!(
            orders["orders"]["nodes"],
            json!([{"id": world.own_order, "customer": {"id": OWN}}])
        );
        let one = "query($id: ID!) { order(id: $id) { id } }";
        let refused = own.graphql(&url, one, json!({"id": world.other_order}));
        assert_eq!(code(&refused), Some("FORBIDDEN"), "{refused}");
        let theirs = "query($id: ID!) { orders(customerId: $id) { nodes { id } } }";
        let refused = own.graphql(&url, theirs, json!({"id": OTHER}));
        assert_eq!(code(&refused), Some("FORBIDDEN"), "{refused}");
    }
    let data = own.data(&world.gateway(), PLACE, json!({"input": order(OWN)}));
    assert!(data["placeOrder"]["order"]["id"].is_string());
    let refused = own.graphql(&world.gateway(), PLACE, json!({"input": order(OTHER)}));
    assert_eq!(code(&refused), Some("FORBIDDEN"), "{refused}");

    let changes = world
        .admin
        .data(&world.gateway(), CHANGES, json!({"id": OWN}));
    assert_eq!(
        changes["customer"]["changes"]["nodes"][0]["changedBy"],
        "developer"
    );
}

#[test]
fn with_tokens_off_the_ready_line_says_so_and_a_token_is_not_looked_at() {
    let tandem = Tandem::start();
    let ready = tandem.process.output();
    assert!(ready.contains("authentication off"), "{ready}");
    let client = Client::with_token("nonsense");
    let all = client.data(
        &tandem.gateway_url("/graphql"),
        "{ customers { nodes { id } } }",
        json!({}),
    );
    assert_eq!(all["customers"]["nodes"], json!([]));
}

#[test]
fn who_asks_too_often_is_told_so_and_other_subjects_at_the_same_address_are_not() {
    let tandem = Tandem::builder()
        .flag("--auth")
        .env("TANDEM_RATE_LIMIT", "10")
        .start();
    let url = tandem.gateway_url("/graphql");
    let [hasty, patient] = ["hasty", "patient"]
        .map(|subject| Client::with_token(tandem.token(subject, "customers:read")));
    let typename = |client: &Client| client.graphql(&url, "{ __typename }", json!({}));
    assert_eq!(typename(&patient)["data"]["__typename"], "Query");
    poll("too many requests are refused", || {
        let answer = typename(&hasty);
        (code(&answer) == Some("RATE_LIMITED")).then_some(())
    });
    let answer = typename(&patient);
    assert_eq!(answer["data"]["__typename"], "Query", "{answer}");
}

#[test]
fn what_others_can_reach_does_not_start_without_authentication_unless_it_is_told_to() {
    for role in ["accounts", "orders", "router"] {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port().unwrap().to_string();
        let start = |more: &[&str]| {
            let mut command = tandem_command();
            command
                .arg(role)
                .args(["--host", "0.0.0.0", "--port", &port])
                .arg("--data-dir")
                .arg(directory.path())
                .args(more)
                .env(
                    "TANDEM_SEALING_KEY",
                    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
                );
            Process::start(&mut command)
        };
        let mut process = start(&[]);
        assert!(!process.wait_for_end(Duration::from_secs(60)).success());
        let (_, errors) = process.all_output();
        for wanted in ["0.0.0.0", "--auth-jwks", "--insecure-no-auth"] {
            assert!(errors.contains(wanted), "{role}: {errors}");
        }

        let _process = start(&["--insecure-no-auth"]);
        let client = Client::new();
        poll(&format!("{role} answers"), || {
            let url = format!("http://127.0.0.1:{port}/actuator/health/liveness");
            (client.try_get(&url)?.status == 200).then_some(())
        });
    }
}

impl Tandem {
    /// A token from `tandem token`, valid for an hour.
    #[track_caller]
    fn token(&self, subject: &str, scope: &str) -> String {
        self.token_for(subject, scope, "1h")
    }

    #[track_caller]
    fn token_for(&self, subject: &str, scope: &str, life: &str) -> String {
        let data_dir = self.data_dir().display().to_string();
        let words = [
            "token",
            "--subject",
            subject,
            "--scope",
            scope,
            "--expires-in",
            life,
            "--data-dir",
            &data_dir,
        ];
        self.operated(&words).trim().to_owned()
    }
}
