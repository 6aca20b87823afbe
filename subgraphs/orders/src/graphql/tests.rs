#![allow(clippy::unwrap_used)]
//! Tests of the schema on the embedded store, while Kafka is away.

use std::sync::{Arc, atomic::Ordering};

use async_graphql::{Request, Variables};
use serde_json::{Value, json};
use tandem_authentication::Access;
use tandem_runtime::consistency::{Kind, Written};
use tandem_service::{graphql::Cursor, web::consistency::Behind};

use super::{OrdersSchema, schema, sdl};
use crate::{
    erasure::Forgetting,
    replica::contract,
    test_support::{World, event},
};

struct Client {
    world: World,
    schema: OrdersSchema,
}

impl Client {
    async fn new() -> Self {
        let world = World::new().await;
        let schema = schema(world.backing.clone());
        Self { world, schema }
    }

    async fn answer(&self, query: &str, variables: Value) -> Value {
        let request = Request::new(query)
            .variables(Variables::from_json(variables))
            .data(Access::Open)
            .data(self.world.backing.loaders());
        serde_json::to_value(self.schema.execute(request).await).unwrap()
    }

    async fn data(&self, query: &str, variables: Value) -> Value {
        let answer = self.answer(query, variables).await;
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer["data"].clone()
    }

    /// The code and field of the first error.
    async fn refusal(&self, query: &str, variables: Value) -> (String, Option<String>) {
        let answer = self.answer(query, variables).await;
        let extensions = &answer["errors"][0]["extensions"];
        let text = |name: &str| extensions[name].as_str().map(str::to_owned);
        (
            text("code").unwrap_or_else(|| panic!("{answer}")),
            text("field"),
        )
    }

    fn reads(&self) -> [usize; 3] {
        let customers = self.world.customers.gets.swap(0, Ordering::SeqCst);
        let [orders, lists] = self.world.orders.reads();
        [customers, orders, lists]
    }
}

const PLACE: &str = "mutation($input: PlaceOrderInput!) { placeOrder(input: $input) { order {
    id revision status total placedAt updatedAt shipTo { type city address2 }
    items { quantity product { guid title description price } }
    customer { id name { firstName lastName } }
} } }";
const ADVANCE: &str = "mutation($id: ID!, $to: OrderStatus!, $revision: Int) {
    advanceOrder(id: $id, to: $to, expectedRevision: $revision) { order { id status revision } } }";
const CANCEL: &str = "mutation($id: ID!, $reason: String, $revision: Int) {
    cancelOrder(id: $id, reason: $reason, expectedRevision: $revision) { order { status cancellationReason } } }";

fn placement(customer_id: &str) -> Value {
    json!({"input": {
        "customerId": customer_id,
        "items": [
            {"product": {"guid": "p-1", "title": "Hammer", "price": "12.50"}, "quantity": 2},
            {"product": {"guid": "p-2", "title": "Nails", "description": "A box", "price": "0.10"}, "quantity": 3},
        ],
    }})
}

#[test]
fn the_committed_schema_is_the_one_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema/orders.graphql");
    crate::committed::assert_same(path, &sdl());
}

#[tokio::test]
async fn an_order_is_placed_read_advanced_and_cancelled() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let placed = client.data(PLACE, placement("1")).await;
    let order = &placed["placeOrder"]["order"];
    assert_eq!(order["total"], "25.30");
    assert_eq!(order["status"], "PLACED");
    assert_eq!(order["revision"], 1);
    assert_eq!(order["shipTo"]["type"], "SHIPPING");
    assert_eq!(order["items"][0]["product"]["price"], "12.50");
    assert_eq!(order["customer"]["name"]["lastName"], "Last");
    let id = order["id"].as_str().unwrap();

    let read = client
        .data(
            "query($id: ID!) { order(id: $id) { id total status } }",
            json!({"id": id}),
        )
        .await;
    assert_eq!(
        read["order"],
        json!({"id": id, "total": "25.30", "status": "PLACED"})
    );

    let confirmed = client
        .data(ADVANCE, json!({"id": id, "to": "CONFIRMED", "revision": 1}))
        .await;
    assert_eq!(confirmed["advanceOrder"]["order"]["revision"], 2);
    let cancelled = client
        .data(CANCEL, json!({"id": id, "reason": "too late"}))
        .await;
    assert_eq!(
        cancelled["cancelOrder"]["order"],
        json!({"status": "CANCELLED", "cancellationReason": "too late"})
    );
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused_with_its_field() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let order = client.world.place("1", "2").await;
    let query = "query($after: String) { orders(after: $after) { nodes { id } } }";
    let after = |id: &str| json!({"after": Cursor(id.to_owned()).encode()});
    assert_eq!(
        client.refusal(query, after("123456")).await,
        ("BAD_USER_INPUT".into(), Some("after".to_owned()))
    );
    // The cursor as earlier versions wrote it.
    let behind = client.data(query, after(&order.id)).await;
    assert_eq!(behind["orders"]["nodes"], json!([]));
}

#[tokio::test]
async fn what_is_refused_says_so_with_code_and_field() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let mut wrong = placement("1");
    wrong["input"]["items"][1]["quantity"] = json!(0);
    let field = Some("input.items[1].quantity".to_owned());
    assert_eq!(
        client.refusal(PLACE, wrong).await,
        ("BAD_USER_INPUT".into(), field)
    );

    let mut other_address = placement("1");
    other_address["input"]["shipTo"] = json!("BILLING");
    let field = Some("input.shipTo".to_owned());
    assert_eq!(
        client.refusal(PLACE, other_address).await,
        ("BAD_USER_INPUT".into(), field)
    );

    assert_eq!(
        client.refusal(PLACE, placement("nobody")).await.0,
        "CUSTOMER_UNKNOWN"
    );

    let placed = client.data(PLACE, placement("1")).await;
    let id = &placed["placeOrder"]["order"]["id"];
    let skip = json!({"id": id, "to": "SHIPPED"});
    assert_eq!(client.refusal(ADVANCE, skip).await.0, "INVALID_TRANSITION");
    let stale = json!({"id": id, "to": "CONFIRMED", "revision": 9});
    assert_eq!(client.refusal(ADVANCE, stale).await.0, "REVISION_CONFLICT");
    for nobody in ["0190f3b2-7c1e-7a00-8000-000000000001", "nonsense"] {
        let unknown = json!({"id": nobody, "reason": null});
        assert_eq!(client.refusal(CANCEL, unknown).await.0, "NOT_FOUND");
    }
    let page = "{ orders(first: 0) { nodes { id } } }";
    let field = Some("first".to_owned());
    assert_eq!(
        client.refusal(page, json!({})).await,
        ("BAD_USER_INPUT".into(), field)
    );
}

#[tokio::test]
async fn a_customer_whom_the_caller_wrote_and_the_replica_lacks_is_not_unknown() {
    let client = Client::new().await;
    let written = |id: &str| Written {
        kind: Kind::Customer,
        id: id.to_owned(),
        revision: 1,
    };
    let behind = Behind::of(&[written("new")]).unwrap();
    for (id, code) in [("new", "REPLICA_BEHIND"), ("nobody", "CUSTOMER_UNKNOWN")] {
        let request = Request::new(PLACE)
            .variables(Variables::from_json(placement(id)))
            .data(Access::Open)
            .data(behind.clone())
            .data(client.world.backing.loaders());
        let answer = serde_json::to_value(client.schema.execute(request).await).unwrap();
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!(extensions["code"], code, "{answer}");
        assert_eq!(extensions["field"], "input.customerId", "{answer}");
    }
}

#[tokio::test]
async fn an_order_too_large_to_be_published_is_refused_and_one_that_is_taken_can_go_on() {
    let client = Client::new().await;
    client.world.customer("1").await;
    // Each text keeps its rule. The size of all of them together is counted in bytes.
    let order = |length: usize| {
        let mut order = placement("1");
        let product =
            json!({"guid": "p", "title": "T", "description": "𝄞".repeat(length), "price": "1"});
        order["input"]["items"] = json!(vec![json!({"product": product, "quantity": 1}); 100]);
        order
    };
    let refused = client.refusal(PLACE, order(2_500)).await;
    assert_eq!(refused, ("BAD_USER_INPUT".into(), Some("input".into())));
    assert_eq!(
        client.data("{ orders { nodes { id } } }", json!({})).await,
        json!({"orders": {"nodes": []}})
    );
    let placed = client.data(PLACE, order(2_400)).await;
    let cancelled = json!({"id": placed["placeOrder"]["order"]["id"], "reason": "𝄞".repeat(1_000)});
    let cancelled = client.data(CANCEL, cancelled).await;
    assert_eq!(cancelled["cancelOrder"]["order"]["status"], "CANCELLED");
}

#[tokio::test]
async fn the_same_idempotency_key_gets_the_first_answer() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let mut request = placement("1");
    request["input"]["idempotencyKey"] = json!("k-1");
    let first = client.data(PLACE, request.clone()).await;
    let (second, third) = tokio::join!(
        client.data(PLACE, request.clone()),
        client.data(PLACE, request.clone())
    );
    assert_eq!(second, first);
    assert_eq!(third, first);
    request["input"]["idempotencyKey"] = json!("k-2");
    let (one, other) = tokio::join!(
        client.data(PLACE, request.clone()),
        client.data(PLACE, request.clone())
    );
    assert_eq!(one, other);
    let all = client.data("{ orders { nodes { id } } }", json!({})).await;
    assert_eq!(all["orders"]["nodes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_request_makes_no_second_order_when_its_customer_is_erased() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let mut request = placement("1");
    request["input"]["idempotencyKey"] = json!("k-1");
    let first = client.data(PLACE, request.clone()).await;
    let forgetting = Forgetting::new(Arc::clone(&client.world.stores.own.aggregates));
    forgetting.forget("1").await.unwrap();
    let again = client.data(PLACE, request).await;
    let id = |answer: &Value| answer["placeOrder"]["order"]["id"].clone();
    assert_eq!(id(&again), id(&first));
    let all = client.data("{ orders { nodes { id shipTo { city } } } }", json!({}));
    let all = all.await["orders"]["nodes"].take();
    assert_eq!(all, json!([{"id": id(&first), "shipTo": null}]));
}

#[tokio::test]
async fn one_idempotency_key_with_another_order_is_refused() {
    let client = Client::new().await;
    for id in ["1", "2"] {
        client.world.customer(id).await;
    }
    let mut request = placement("1");
    request["input"]["idempotencyKey"] = json!("k-1");
    let first = client.data(PLACE, request.clone()).await;
    let mut other_customer = request.clone();
    other_customer["input"]["customerId"] = json!("2");
    let mut other_items = request.clone();
    other_items["input"]["items"][0]["quantity"] = json!(77);
    for other in [other_customer, other_items] {
        let refused = client.refusal(PLACE, other).await;
        let field = "input.idempotencyKey".to_owned();
        assert_eq!(refused, ("IDEMPOTENCY_KEY_REUSED".to_owned(), Some(field)));
    }
    assert_eq!(client.data(PLACE, request).await, first);
    let all = client.data("{ orders { nodes { id } } }", json!({})).await;
    assert_eq!(all["orders"]["nodes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pages_of_orders_follow_each_other_and_are_narrowed() {
    let client = Client::new().await;
    for id in ["1", "2"] {
        client.world.customer(id).await;
    }
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(client.world.place("1", "1").await.id);
    }
    client.world.place("2", "1").await;
    client.data(CANCEL, json!({"id": placed[3]})).await;
    let query = "query($status: OrderStatus, $after: String) {
        orders(customerId: \"1\", status: $status, first: 2, after: $after) {
            nodes { id } edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = client.data(query, json!({"after": after})).await["orders"].clone();
        for node in page["nodes"].as_array().unwrap() {
            seen.push(node["id"].as_str().unwrap().to_owned());
        }
        if page["pageInfo"]["hasNextPage"] == json!(false) {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(seen, placed);
    let cancelled = client.data(query, json!({"status": "CANCELLED"})).await;
    assert_eq!(cancelled["orders"]["nodes"], json!([{"id": placed[3]}]));
    let bad = client.refusal(query, json!({"after": "nonsense!"})).await;
    assert_eq!(bad, ("BAD_USER_INPUT".into(), Some("after".into())));
}

#[tokio::test]
async fn a_hundred_customers_are_one_read_of_each_store() {
    let client = Client::new().await;
    let mut references = Vec::new();
    for n in 0..100 {
        let id = format!("c-{n}");
        client.world.customer(&id).await;
        client.world.place(&id, "1").await;
        references.push(json!({"__typename": "Customer", "id": id}));
    }
    client.reads();
    let query = "query($references: [_Any!]!) { _entities(representations: $references) { ... on Customer {
        id name { firstName } contact { email } addresses { city } replica { revision }
        orders(first: 5) { nodes { id total customer { id name { lastName } } changes { nodes { revision } } } } } } }";
    let answer = client.data(query, json!({"references": references})).await;
    let entities = answer["_entities"].as_array().unwrap();
    assert_eq!(entities.len(), 100);
    for (n, entity) in entities.iter().enumerate() {
        assert_eq!(entity["id"], format!("c-{n}"));
        assert_eq!(
            entity["orders"]["nodes"][0]["customer"]["name"]["lastName"],
            "Last"
        );
    }
    assert_eq!(client.reads(), [1, 0, 1]);
}

#[tokio::test]
async fn a_hundred_orders_are_one_read() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let mut references = Vec::new();
    for _ in 0..100 {
        let order = client.world.place("1", "2").await;
        references.push(json!({"__typename": "Order", "id": order.id}));
    }
    client.reads();
    let query =
        "query($references: [_Any!]!) { _entities(representations: $references) { ... on Order {
        id total customer { name { firstName } } } } }";
    let answer = client.data(query, json!({"references": references})).await;
    assert_eq!(answer["_entities"][99]["total"], "2");
    assert_eq!(client.reads(), [1, 1, 0]);
}

#[tokio::test]
async fn a_customer_on_the_way_here_has_no_orders_and_spoils_no_other() {
    let client = Client::new().await;
    client.world.customer("1").await;
    let references =
        json!([{"__typename": "Customer", "id": "1"}, {"__typename": "Customer", "id": "2"}]);
    let lists =
        "query($references: [_Any!]!) { _entities(representations: $references) { ... on Customer {
        id orders { nodes { id } } replica { revision } } } }";
    let answer = client.data(lists, json!({"references": references})).await;
    assert_eq!(
        answer["_entities"][1],
        json!({"id": "2", "orders": {"nodes": []}, "replica": null})
    );

    let names =
        "query($references: [_Any!]!) { _entities(representations: $references) { ... on Customer {
        name { firstName } } } }";
    let answer = client
        .answer(names, json!({"references": references}))
        .await;
    assert_eq!(
        answer["data"]["_entities"],
        json!([{"name": {"firstName": "First1"}}, null])
    );
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_ordering_customer_is_waited_for() {
    let client = Client::new().await;
    let query = "query($revision: Int) { orderingCustomer(id: \"1\", minRevision: $revision) {
        name { firstName } replica { revision changedAt replicatedAt } orders { nodes { id } } } }";
    assert_eq!(
        client.data(query, json!({})).await["orderingCustomer"],
        Value::Null
    );
    let asked = json!({"revision": 2});
    let (answer, ()) = tokio::join!(client.data(query, asked), async {
        for revision in 1..=2 {
            let customer = contract::customer("1", revision);
            client
                .world
                .backing
                .replica
                .take(vec![customer])
                .await
                .unwrap();
        }
    });
    assert_eq!(answer["orderingCustomer"]["replica"]["revision"], 2);
    let unknown = query.replace("\"1\"", "\"nobody\"");
    let (behind, unknown) = tokio::join!(
        client.answer(query, json!({"revision": 3})),
        client.answer(&unknown, json!({"revision": 1})),
    );
    for (answer, says) in [
        (&behind, "the replica holds revision 2; ask again"),
        (&unknown, "orders knows no customer with this id yet"),
    ] {
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], "REPLICA_BEHIND", "{answer}");
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{answer}"
        );
    }
    let wrong = client.refusal(query, json!({"revision": 0})).await;
    assert_eq!(wrong, ("BAD_USER_INPUT".into(), Some("minRevision".into())));
}

#[tokio::test]
async fn changes_of_an_order_are_what_the_log_holds() {
    use tandem_event_path::projection::Projection;

    let client = Client::new().await;
    client.world.customer("1").await;
    let order = client.world.place("1", "1").await;
    let log = &client.world.order_log;
    let placed = event(&order);
    log.append(0, &placed);
    log.append(0, &placed);
    let confirmed = order
        .advance(
            crate::domain::OrderStatus::Confirmed,
            None,
            chrono::Utc::now(),
        )
        .unwrap();
    log.append(0, &event(&confirmed));
    let audit = client.world.audit();
    let items = log
        .messages()
        .iter()
        .map(|message| (message.position, audit.decode(message).unwrap()))
        .collect();
    audit.apply(items).await.unwrap();
    let query = "query($id: ID!) { order(id: $id) { changes(first: 1) {
        nodes { eventId revision type changedBy changedFields } pageInfo { hasNextPage } } } }";
    let changes = client.data(query, json!({"id": order.id})).await["order"]["changes"].clone();
    assert_eq!(
        changes,
        json!({
            "nodes": [{
                "eventId": placed.id, "revision": 1, "type": "PLACED", "changedBy": "test",
                "changedFields": ["items", "shipTo", "status", "total"],
            }],
            "pageInfo": {"hasNextPage": true},
        })
    );
}
