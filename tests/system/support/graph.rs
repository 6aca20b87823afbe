//! Operations with which nearly every system test begins.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Client, Tandem, poll, poll_for};

/// The documented REST body, unchanged.
pub const SAMPLE_BODY: &str =
    include_str!("../../../subgraphs/accounts/src/rest/sample-customer.json");

pub const CREATE: &str = "mutation($input: CreateCustomerInput!) {
    createCustomer(input: $input) { customer { id revision } } }";
pub const UPDATE: &str = "mutation($id: ID!, $input: UpdateCustomerInput!, $expected: Int) {
    updateCustomer(id: $id, input: $input, expectedRevision: $expected) { customer { id revision } } }";
pub const PLACE: &str = "mutation($input: PlaceOrderInput!) {
    placeOrder(input: $input) { order { id status total revision } } }";
pub const ADVANCE: &str = "mutation($id: ID!, $to: OrderStatus!) {
    advanceOrder(id: $id, to: $to) { order { id status revision } } }";
pub const ORDERING_CUSTOMER: &str = "query($id: ID!, $minRevision: Int) {
    orderingCustomer(id: $id, minRevision: $minRevision) {
        id name { firstName lastName } contact { email } addresses { type city }
        orders { nodes { id status } } replica { revision } } }";

/// The input of a new customer.
pub fn customer_input(id: &str, last_name: &str) -> Value {
    json!({
        "id": id,
        "name": {"firstName": "Ada", "lastName": last_name},
        "contact": {"primaryPhone": "+44 20 7946 0001", "email": "ada@example.org"},
        "addresses": [
            {"type": "BILLING", "address1": "12 St James's Square", "city": "London", "state": "London", "postalCode": "SW1Y 4JH"},
            {"type": "SHIPPING", "address1": "1 Ockham Park", "city": "Ockham", "state": "Surrey", "postalCode": "GU23 6NQ"},
        ],
        "creditCards": [
            {"type": "PRIMARY", "number": "4111111111111111", "expiration": "12/29", "nameOnCard": "Ada Lovelace"},
        ],
    })
}

/// The input of a new order.
pub fn order_input(customer: &str) -> Value {
    json!({
        "customerId": customer,
        "items": [
            {"product": {"guid": "b5efd4a0-4eb9-4ad0-bc9e-2f5542cbe897", "title": "Engine", "price": "12.50"}, "quantity": 2},
        ],
    })
}

/// How long publishing everything to the log may take.
pub const PUBLISHED: Duration = Duration::from_secs(600);

impl Tandem {
    /// Creates a customer through the gateway and waits until orders knows it.
    #[track_caller]
    pub fn customer(&self, client: &Client, id: &str) {
        let gateway = self.gateway_url("/graphql");
        client.data(
            &gateway,
            CREATE,
            json!({"input": customer_input(id, "Lovelace")}),
        );
        self.replicated(client, id, 1);
    }

    /// Waits until orders' replica has the revision.
    #[track_caller]
    pub fn replicated(&self, client: &Client, id: &str, revision: i64) {
        let orders = self.orders_url("/graphql");
        poll(&format!("revision {revision} of {id} in orders"), || {
            let response = client
                .try_graphql(&orders, ORDERING_CUSTOMER, json!({"id": id}))
                .ok()?;
            let held = response["data"]["orderingCustomer"]["replica"]["revision"].as_i64()?;
            (held >= revision).then_some(())
        });
    }

    /// Waits until the audit trail of a `customer` or an `order` shows this many changes. It is a projection of the
    /// topic, so it may lag behind the response of a command.
    #[track_caller]
    pub fn audited(&self, client: &Client, aggregate: &str, id: &str, changes: usize) {
        let service = match aggregate {
            "customer" => self.accounts_url("/graphql"),
            _ => self.orders_url("/graphql"),
        };
        let query = format!(
            "query($id: ID!) {{ {aggregate}(id: $id) {{ changes {{ nodes {{ revision }} }} }} }}"
        );
        poll(
            &format!("{changes} changes in the audit trail of {aggregate} {id}"),
            || {
                let answer = client
                    .try_graphql(&service, &query, json!({"id": id}))
                    .ok()?;
                let shown = answer["data"][aggregate]["changes"]["nodes"].as_array()?;
                (shown.len() >= changes).then_some(())
            },
        );
    }

    /// Waits until the outbox is empty.
    #[track_caller]
    pub fn published(&self, client: &Client) {
        for service in [self.accounts_url(""), self.orders_url("")] {
            poll_for(PUBLISHED, "everything is published", || {
                let metrics = client.try_get(&format!("{service}/actuator/prometheus"))?;
                let pending = metrics
                    .body
                    .lines()
                    .find_map(|line| line.strip_prefix("outbox_pending_events{"))?;
                pending.ends_with(" 0").then_some(())
            });
        }
    }

    /// Places an order through the gateway and returns its id.
    #[track_caller]
    pub fn order(&self, client: &Client, customer: &str) -> String {
        let gateway = self.gateway_url("/graphql");
        let data = client.data(&gateway, PLACE, json!({"input": order_input(customer)}));
        data["placeOrder"]["order"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}
