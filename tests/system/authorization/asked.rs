//! The query for each field of the table.

use serde_json::{Value, json};

use super::table::Field;
use super::{OTHER, OWN, World, customer, order};

/// A query for a field. `other` asks about another customer, where the field can name one.
pub struct Asked {
    pub own: (String, Value),
    pub other: Option<(String, Value)>,
}

impl Asked {
    fn of(query: &str, own: Value, other: Option<Value>) -> Self {
        Self {
            own: (query.to_owned(), own),
            other: other.map(|other| (query.to_owned(), other)),
        }
    }

    /// A document with one variable `$id`.
    fn by_id(query: &str, own: &str, other: &str) -> Self {
        Self::of(query, json!({"id": own}), Some(json!({"id": other})))
    }
}

/// What to select of a customer, if the field belongs to that entity or is the entity itself.
pub fn of_customer(field: &Field) -> Option<&'static str> {
    Some(
        match (field.service, field.of.as_str(), field.name.as_str()) {
            ("accounts", "_entities", "Customer") => "revision",
            ("orders", "_entities", "Customer") => "id",
            ("orders", "Customer", "name") => "name { firstName }",
            ("orders", "Customer", "contact") => "contact { email }",
            ("orders", "Customer", "addresses") => "addresses { city }",
            ("orders", "Customer", "orders") => "orders { nodes { id } }",
            ("orders", "Customer", "replica") => "replica { revision }",
            _ => return None,
        },
    )
}

pub fn asked(world: &World, field: &Field) -> Asked {
    let (own_order, other_order) = (&world.own_order, &world.other_order);
    let entity = |of: &str, selection: &str, own: &str, other: &str| {
        let reference = |id: &str| json!({"references": [{"__typename": of, "id": id}]});
        let query = format!(
            "query($references: [_Any!]!) {{ _entities(representations: $references) {{ ... on {of} {{ {selection} }} }} }}"
        );
        Asked::of(&query, reference(own), Some(reference(other)))
    };
    let input = |id: &str| json!({"input": order(id)});
    if let Some(selection) = of_customer(field) {
        return entity("Customer", selection, OWN, OTHER);
    }
    match (field.of.as_str(), field.name.as_str()) {
        ("Query", "customer") => {
            Asked::by_id("query($id: ID!) { customer(id: $id) { id } }", OWN, OTHER)
        }
        ("Query", "customers") => Asked::of("{ customers { nodes { id } } }", json!({}), None),
        ("Query", "order") => Asked::by_id(
            "query($id: ID!) { order(id: $id) { id } }",
            own_order,
            other_order,
        ),
        ("Query", "orders") => Asked::by_id(
            "query($id: ID) { orders(customerId: $id) { nodes { id } } }",
            OWN,
            OTHER,
        ),
        ("Query", "orderingCustomer") => Asked::by_id(
            "query($id: ID!) { orderingCustomer(id: $id) { id } }",
            OWN,
            OTHER,
        ),
        ("Mutation", "createCustomer") => {
            let mut input = customer(OWN);
            input["id"] = Value::Null;
            Asked::of(
                "mutation($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }",
                json!({"input": input}),
                None,
            )
        }
        ("Mutation", "updateCustomer") => Asked::by_id(
            "mutation($id: ID!) { updateCustomer(id: $id, input: {}) { customer { id } } }",
            OWN,
            OTHER,
        ),
        // An id that does not exist, because an authorized caller would erase the customer.
        ("Mutation", "eraseCustomer") => Asked::of(
            "mutation { eraseCustomer(id: \"nobody\") { id } }",
            json!({}),
            None,
        ),
        ("Mutation", "placeOrder") => Asked::of(
            "mutation($input: PlaceOrderInput!) { placeOrder(input: $input) { order { id } } }",
            input(OWN),
            Some(input(OTHER)),
        ),
        // The order can take this step only once. Later calls are answered with an error that is not a refusal.
        ("Mutation", "advanceOrder") => Asked::by_id(
            "mutation($id: ID!) { advanceOrder(id: $id, to: DELIVERED) { order { id } } }",
            own_order,
            other_order,
        ),
        // Shipped by then, so the order does not change.
        ("Mutation", "cancelOrder") => Asked::by_id(
            "mutation($id: ID!) { cancelOrder(id: $id) { order { id } } }",
            own_order,
            other_order,
        ),
        // An invalid cursor: an authorized subscriber gets an error at once, so that the test waits for no event.
        ("Subscription", "orderUpdated") => Asked::by_id(
            "subscription($id: ID) { orderUpdated(customerId: $id, after: \"none\") { cursor } }",
            OWN,
            OTHER,
        ),
        ("Subscription", "orderFeed") => Asked::by_id(
            "subscription($id: ID) { orderFeed(customerId: $id, after: \"none\") { __typename } }",
            OWN,
            OTHER,
        ),
        ("Subscription", "customerFeed") => Asked::by_id(
            "subscription($id: ID!) { customerFeed(id: $id, after: \"none\") { __typename } }",
            OWN,
            OTHER,
        ),
        ("Subscription", "customerUpdated") => Asked::by_id(
            "subscription($id: ID!) { customerUpdated(id: $id) { id } }",
            OWN,
            OTHER,
        ),
        ("_entities", "Order") => entity("Order", "total", own_order, other_order),
        other => panic!("write down how {other:?} of {} is asked for", field.service),
    }
}
