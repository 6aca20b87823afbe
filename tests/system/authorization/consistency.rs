//! Anybody can write a consistency token, so it grants nothing. A caller that sends one must learn nothing that it may
//! not query, neither from the response nor from its duration.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{OTHER, OWN, World};
use crate::support::poll;

/// How long a response takes that waits for a revision that never comes.
const WAIT: Duration = Duration::from_secs(2);
const BEHIND: &str = "REPLICA_BEHIND";

/// A response, and how long it took.
struct Told {
    body: String,
    warning: Option<String>,
    took: Duration,
}

impl Told {
    fn is_behind(&self) -> bool {
        self.body.contains(BEHIND) || self.warning.is_some()
    }
}

struct Asker {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

impl Asker {
    fn new() -> Self {
        Self {
            runtime: tokio::runtime::Runtime::new().unwrap(),
            http: reqwest::Client::new(),
        }
    }

    fn tell(&self, request: reqwest::RequestBuilder, bearer: Option<&str>, token: &str) -> Told {
        let mut request = request.header("tandem-consistency", token);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        self.runtime.block_on(async {
            let begun = Instant::now();
            let answer = request.send().await.unwrap();
            let warning = answer.headers().get("warning");
            let warning = warning.map(|it| it.to_str().unwrap().to_owned());
            let body = answer.text().await.unwrap();
            Told {
                body,
                warning,
                took: begun.elapsed(),
            }
        })
    }

    fn graphql(&self, url: &str, query: &Value, bearer: Option<&str>, token: &str) -> Told {
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .body(query.to_string());
        self.tell(request, bearer, token)
    }

    fn rest(&self, url: &str, bearer: Option<&str>, token: &str) -> Told {
        self.tell(self.http.get(url), bearer, token)
    }
}

/// Repeats the request until a response is faster than one that waits, because a machine may be slow. No response may
/// say that something is not shown.
#[track_caller]
fn is_told_nothing(what: &str, mut ask: impl FnMut() -> Told) {
    poll(&format!("{what}: an answer without waiting"), || {
        let told = ask();
        assert!(!told.is_behind(), "{what}: {}", told.body);
        (told.took < WAIT).then_some(())
    });
}

#[test]
fn a_consistency_token_tells_nobody_of_what_they_may_not_ask_about() {
    let world = World::start();
    let asker = Asker::new();
    let of_customers = json!({"query": format!(
        "{{ orderingCustomer(id: \"{OTHER}\") {{ id }} }}"
    )});
    let of_orders = json!({"query": "{ orders { nodes { id } } }"});
    let gateway = world.gateway();
    let orders = world.tandem.orders_url("/graphql");
    let accounts = world.tandem.accounts_url("/graphql");
    let of_record = json!({"query": format!("{{ customer(id: \"{OTHER}\") {{ id }} }}")});
    // Existing things at revisions that they do not have, and things that do not exist.
    let strange = [
        format!("v1~c.{OTHER}.99"),
        "v1~c.nobody.1".to_owned(),
        format!("v1~o.{}.99", world.other_order),
        "v1~o.0190f3b2-7c1e-7a00-8000-000000000001.1".to_owned(),
    ];
    let of_own_customer = world.issuer.token(OWN, "self");
    let operator = world.issuer.token("ops", "operations");
    for bearer in [None, Some(&*of_own_customer), Some(&*operator)] {
        for token in &strange {
            for (url, query) in [
                (&gateway, &of_customers),
                (&gateway, &of_record),
                (&orders, &of_customers),
                (&orders, &of_orders),
                (&accounts, &of_record),
            ] {
                let what = format!("{url} {query} {token}");
                is_told_nothing(&what, || asker.graphql(url, query, bearer, token));
            }
            for path in [format!("/orders/order/{OTHER}"), "/orders/list".to_owned()] {
                for url in [
                    world.tandem.gateway_url(&path),
                    world.tandem.orders_url(&path),
                ] {
                    let what = format!("{url} {token}");
                    is_told_nothing(&what, || asker.rest(&url, bearer, token));
                }
            }
        }
    }
    // With `self`, waiting must not reveal the owner of an order either, not even of the caller's own order.
    let own_order = format!("v1~o.{}.99", world.own_order);
    is_told_nothing("an own order", || {
        asker.graphql(&orders, &of_orders, Some(&of_own_customer), &own_order)
    });
}

#[test]
fn who_may_ask_about_a_thing_waits_for_it_and_is_told_that_it_is_behind() {
    let world = World::start();
    let asker = Asker::new();
    let token = |subject, scope| world.issuer.token(subject, scope);
    let of_customer =
        |id: &str| json!({"query": format!("{{ orderingCustomer(id: \"{id}\") {{ id }} }}")});
    let of_order = json!({"query": format!("{{ order(id: \"{}\") {{ id }} }}", world.own_order)});
    for (bearer, query, behind) in [
        (
            token(OWN, "self"),
            of_customer(OWN),
            format!("v1~c.{OWN}.99"),
        ),
        (
            token("reader", "customers:read"),
            of_customer(OTHER),
            format!("v1~c.{OTHER}.99"),
        ),
        (
            token("reader", "orders:read"),
            of_order,
            format!("v1~o.{}.99", world.own_order),
        ),
    ] {
        for url in [world.gateway(), world.tandem.orders_url("/graphql")] {
            let told = asker.graphql(&url, &query, Some(&bearer), &behind);
            assert!(told.body.contains(BEHIND), "{url} {behind}: {}", told.body);
        }
    }
    let behind = format!("v1~c.{OWN}.99");
    for url in [
        world.tandem.gateway_url(&format!("/orders/order/{OWN}")),
        world.tandem.orders_url(&format!("/orders/order/{OWN}")),
    ] {
        let told = asker.rest(&url, Some(&token(OWN, "self")), &behind);
        assert!(told.warning.is_some(), "{url}: {}", told.body);
    }
}
