//! Reading one's own writes with a header: a request that sends back the token of a mutation's response sees that
//! write, on any port.

use serde_json::{Value, json};

use super::support::{
    Client, Tandem, Transport,
    graph::{CREATE, PLACE, SAMPLE_BODY, UPDATE, customer_input, order_input},
};

#[path = "consistency/pairs.rs"]
mod pairs;

const HEADER: &str = "tandem-consistency";
/// Pairs of a write and a read.
const PAIRS: usize = 60;

/// A response, with the token in its header.
struct Told {
    body: Value,
    token: Option<String>,
}

impl Told {
    fn token(&self) -> &str {
        self.token.as_deref().unwrap()
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

    fn graphql(&self, url: &str, query: &str, variables: Value, token: Option<&str>) -> Told {
        let body = json!({"query": query, "variables": variables}).to_string();
        let mut request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        if let Some(token) = token {
            request = request.header(HEADER, token);
        }
        let (token, text) = self.send(request);
        Told {
            body: serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")),
            token,
        }
    }

    /// The first event of a subscription over server-sent events.
    fn first_event(&self, url: &str, query: &str, token: &str) -> Value {
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .header(HEADER, token)
            .body(json!({"query": query}).to_string());
        self.runtime.block_on(async {
            let mut answer = request.send().await.unwrap();
            let mut text = String::new();
            loop {
                let part = answer.chunk().await.unwrap().expect("an event");
                text.push_str(&String::from_utf8_lossy(&part));
                if let Some((_, data)) = text.split_once("data: ")
                    && let Some((event, _)) = data.split_once('\n')
                {
                    break serde_json::from_str::<Value>(event).unwrap();
                }
            }
        })
    }

    /// The status, and the `warning` headers.
    fn warnings(&self, url: &str, token: &str) -> (u16, Vec<String>) {
        let request = self.http.get(url).header(HEADER, token);
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let warnings = answer.headers().get_all("warning").iter();
            let warnings = warnings.map(|it| it.to_str().unwrap().to_owned());
            let warnings: Vec<String> = warnings.collect();
            (answer.status().as_u16(), warnings)
        })
    }

    fn send(&self, request: reqwest::RequestBuilder) -> (Option<String>, String) {
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let tokens: Vec<_> = answer.headers().get_all(HEADER).iter().collect();
            assert!(tokens.len() < 2, "{tokens:?}");
            let token = tokens
                .first()
                .map(|token| token.to_str().unwrap().to_owned());
            (token, answer.text().await.unwrap())
        })
    }
}

#[test]
fn who_brings_the_token_of_a_write_reads_it_everywhere() {
    let tandem = Tandem::start();
    let asker = Asker::new();
    let gateway = tandem.gateway_url("/graphql");
    let read = "query($id: ID!) { orderingCustomer(id: $id) { replica { revision } }
        customer(id: $id) { changes { nodes { revision } } } }";
    let in_orders = "query($id: ID!) { orderingCustomer(id: $id) { replica { revision } } }";
    for pair in 0..PAIRS {
        let id = format!("pair-{pair}");
        let input = json!({"input": customer_input(&id, "Lovelace")});
        let created = asker.graphql(&gateway, CREATE, input, None);
        assert!(created.body["errors"].is_null(), "{}", created.body);
        assert_eq!(created.body["extensions"]["consistency"], created.token());
        let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
        let change = json!({"id": id, "input": name});
        let updated = asker.graphql(&gateway, UPDATE, change, Some(created.token()));
        let token = Some(updated.token());
        let shown = asker.graphql(
            &tandem.orders_url("/graphql"),
            in_orders,
            json!({"id": id}),
            token,
        );
        assert_eq!(
            shown.body["data"]["orderingCustomer"]["replica"]["revision"], 2,
            "{}",
            shown.body
        );
        let shown = asker.graphql(&gateway, read, json!({"id": id}), token);
        let changes = shown.body["data"]["customer"]["changes"]["nodes"].as_array();
        assert_eq!(changes.map(Vec::len), Some(2), "{}", shown.body);
        // A new customer orders at once.
        let order = json!({"input": order_input(&id)});
        let placed = asker.graphql(&gateway, PLACE, order, token);
        assert!(placed.body["errors"].is_null(), "{}", placed.body);
        assert!(placed.token().contains("~o.") && placed.token().contains("~c."));
        let order = placed.body["data"]["placeOrder"]["order"]["id"].clone();
        let audit = "query($id: ID!) { order(id: $id) { changes { nodes { revision } } } }";
        let shown = asker.graphql(&gateway, audit, json!({"id": order}), Some(placed.token()));
        assert_eq!(
            shown.body["data"]["order"]["changes"]["nodes"][0]["revision"], 1,
            "{}",
            shown.body
        );
    }
}

#[test]
fn what_is_not_shown_in_time_is_told_beside_the_data_and_what_is_no_token_is_ignored() {
    let tandem = Tandem::start();
    let client = Client::new();
    let asker = Asker::new();
    tandem.customer(&client, "1");
    let read = "{ orderingCustomer(id: \"1\") { replica { revision } } }";
    for url in [
        tandem.gateway_url("/graphql"),
        tandem.orders_url("/graphql"),
    ] {
        let behind = asker.graphql(&url, read, json!({}), Some("v1~c.1.99"));
        let held = &behind.body["data"]["orderingCustomer"]["replica"]["revision"];
        assert_eq!(held, 1, "{url}: {}", behind.body);
        let error = &behind.body["errors"][0];
        assert_eq!(
            error["extensions"]["code"], "REPLICA_BEHIND",
            "{url}: {}",
            behind.body
        );
        let ignored = asker.graphql(&url, read, json!({}), Some("nonsense"));
        assert!(ignored.body["errors"].is_null(), "{url}: {}", ignored.body);
        assert!(
            ignored.body["extensions"]["warnings"][0].is_string(),
            "{}",
            ignored.body
        );
        assert_eq!(ignored.token, None);
    }
}

#[test]
fn several_fields_of_a_mutation_have_one_token() {
    let tandem = Tandem::start();
    let asker = Asker::new();
    let both = "mutation($a: CreateCustomerInput!, $b: CreateCustomerInput!) {
        a: createCustomer(input: $a) { customer { id } } b: createCustomer(input: $b) { customer { id } } }";
    let variables = json!({"a": customer_input("a", "King"), "b": customer_input("b", "King")});
    let told = asker.graphql(&tandem.gateway_url("/graphql"), both, variables, None);
    assert_eq!(told.token(), "v1~c.a.1~c.b.1", "{}", told.body);
    assert_eq!(told.body["extensions"]["consistency"], "v1~c.a.1~c.b.1");
}

#[test]
fn rest_gives_a_token_and_takes_one() {
    let tandem = Tandem::start();
    let asker = Asker::new();
    for pair in 0..PAIRS / 3 {
        let id = format!("rest-{pair}");
        let mut input: Value = serde_json::from_str(SAMPLE_BODY).unwrap();
        input["id"] = json!(id);
        let create = asker
            .http
            .post(tandem.gateway_url("/accounts/customer/create"))
            .header("content-type", "application/json")
            .body(input.to_string());
        let (token, text) = asker.send(create);
        assert_eq!(text, "Customer account created!");
        let read = asker
            .http
            .get(tandem.gateway_url(&format!("/orders/order/{id}")))
            .header(HEADER, token.unwrap());
        let (_, text) = asker.send(read);
        assert!(text.contains(&id), "{text}");
    }
}

#[test]
fn rest_warns_of_what_is_not_shown_in_time_and_of_what_is_no_token() {
    let tandem = Tandem::start();
    tandem.customer(&Client::new(), "1");
    let asker = Asker::new();
    for url in [
        tandem.gateway_url("/orders/order/1"),
        tandem.orders_url("/orders/order/1"),
    ] {
        for (token, codes) in [
            ("v1~c.1.99", &["199"][..]),
            ("v1~c.1.1", &[]),
            ("nonsense", &["299"]),
            ("v1~c.1.99, nonsense", &["199", "299"]),
        ] {
            let (status, warnings) = asker.warnings(&url, token);
            assert_eq!(status, 200, "{url} {token}");
            let told: Vec<&str> = warnings.iter().map(|it| &it[..3]).collect();
            assert_eq!(told, codes, "{url} {token}: {warnings:?}");
        }
    }
    let (_, warnings) = asker.warnings(&tandem.accounts_url("/accounts/customer/print"), "v2");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn a_subscription_whose_connection_brings_a_token_begins_when_it_is_shown() {
    let tandem = Tandem::start();
    let asker = Asker::new();
    let gateway = tandem.gateway_url("/graphql");
    let input = json!({"input": customer_input("1", "Lovelace")});
    let created = asker.graphql(&gateway, CREATE, input, None);
    let client = Client::with_consistency(created.token());
    let feed = "subscription { customerFeed(id: \"1\", snapshot: true) { ... on CustomerSnapshot { customer { id } } } }";
    for url in [gateway, tandem.orders_url("/graphql")] {
        let first = client
            .subscribe(Transport::WebSocket, &url, feed, json!({}))
            .next();
        assert_eq!(
            first["data"]["customerFeed"]["customer"]["id"], "1",
            "{first}"
        );
        assert!(first["extensions"]["warnings"].is_null(), "{first}");
    }
}

#[test]
fn a_subscription_that_brings_what_is_no_token_is_warned_with_its_first_event() {
    let tandem = Tandem::start();
    tandem.customer(&Client::new(), "1");
    let feed = "subscription { customerFeed(id: \"1\", snapshot: true) { __typename } }";
    for url in [
        tandem.gateway_url("/graphql"),
        tandem.orders_url("/graphql"),
    ] {
        let by_socket = Client::with_consistency("nonsense")
            .subscribe(Transport::WebSocket, &url, feed, json!({}))
            .next();
        let by_events = Asker::new().first_event(&url, feed, "nonsense");
        for first in [by_socket, by_events] {
            assert!(first["data"]["customerFeed"].is_object(), "{url}: {first}");
            assert!(
                first["extensions"]["warnings"][0].is_string(),
                "{url}: {first}"
            );
        }
    }
}
