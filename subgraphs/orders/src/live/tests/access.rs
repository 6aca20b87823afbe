//! Which subscribers hear of which changes, and what they see of them, by the rights of the subscription. Subscribers
//! with the same selection share a rendering, so they must have the same rights.

use async_graphql::{Request, Variables};
use futures::{FutureExt, StreamExt, stream::BoxStream};
use serde_json::{Value, json};
use tandem_authentication::{Access, Principal, Scopes};
use tandem_service::graphql::written::Handover;
use tokio::time::timeout;

use super::{OrdersSchema, advanced, begun, schema};
use crate::{
    domain::Order,
    test_support::{LIMIT, World, event},
};

// Documents without string literals. Only the renderings of such documents are shared.
const UPDATED: &str = "subscription { orderUpdated { order { id } } }";
const FEED: &str = "subscription { orderFeed { ... on OrderUpdate { order { id } } } }";
const SNAPSHOT: &str = "subscription($order: ID) { orderFeed(orderId: $order, snapshot: true) {
    ... on OrderSnapshot { complete orders { id } } ... on OrderUpdate { order { id } } } }";
const WITH_CURSOR: &str =
    "subscription($after: String) { orderUpdated(after: $after) { cursor order { id } } }";
const OF_ORDER: &str =
    "subscription($order: ID) { orderUpdated(orderId: $order) { order { id } } }";
const WITH_NAME: &str =
    "subscription { orderUpdated { order { id customer { id name { lastName } } } } }";

/// How responses are made.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Rendered once for all subscribers with the same selection and the same rights.
    Together,
    /// Resolved for this subscriber alone.
    Alone,
}

const WAYS: [Way; 2] = [Way::Together, Way::Alone];

/// The graph on logs in memory, with the customers 1 and 2.
struct Graph {
    world: World,
    schema: OrdersSchema,
}

impl Graph {
    async fn new() -> Self {
        let world = World::new().await;
        for id in ["1", "2"] {
            world.customer(id).await;
        }
        begun(&world).await;
        let schema = schema(world.backing.clone());
        Self { world, schema }
    }

    /// The responses of a subscription for the bearer of a token.
    async fn subscribe(
        &self,
        way: Way,
        (subject, scopes): (&str, &str),
        document: &str,
        variables: Value,
    ) -> BoxStream<'static, Value> {
        let request = Request::new(document)
            .variables(Variables::from_json(variables))
            .data(bearer(subject, scopes));
        match way {
            Way::Together => {
                let handover = Handover::of(document);
                assert!(handover.may_be_kept(), "{document}");
                let mut resolved = self.schema.execute_stream(request.data(handover.clone()));
                let first = timeout(LIMIT, resolved.next()).await.unwrap();
                assert!(first.is_none(), "{first:?}");
                let written = handover.take().unwrap();
                written
                    .map(|event| {
                        let data = event.strip_prefix(b"event: next\ndata: ").unwrap();
                        serde_json::from_slice(data).unwrap()
                    })
                    .boxed()
            }
            Way::Alone => self
                .schema
                .execute_stream(request)
                .map(|response| serde_json::to_value(response).unwrap())
                .boxed(),
        }
    }

    /// The same, already listening. Nothing has been sent yet.
    async fn listen(
        &self,
        way: Way,
        bearer: (&str, &str),
        document: &str,
        variables: Value,
    ) -> BoxStream<'static, Value> {
        let mut responses = self.subscribe(way, bearer, document, variables).await;
        let early = responses.next().now_or_never();
        assert!(early.is_none(), "{document}: {early:?}");
        responses
    }

    async fn place(&self, customer: &str) -> Order {
        let order = self.world.place(customer, "1").await;
        self.publish(&order).await;
        order
    }

    async fn publish(&self, order: &Order) {
        self.world.order_log.append(0, &event(order));
        // The change is made within the tolerated clock skew after the feed began, so the audit trail must confirm that
        // it is new.
        self.world.audit_everything().await;
    }
}

fn bearer(subject: &str, scopes: &str) -> Access {
    Access::Bearer(Principal {
        subject: subject.into(),
        scopes: Scopes::of_claim(scopes),
        expires_at: u64::MAX,
    })
}

async fn next(responses: &mut BoxStream<'static, Value>) -> Value {
    timeout(LIMIT, responses.next()).await.unwrap().unwrap()
}

/// The id of the order in a response.
fn order_of(response: &Value) -> &str {
    let data = &response["data"];
    let order = ["orderUpdated", "orderFeed"]
        .iter()
        .find_map(|root| data[*root]["order"]["id"].as_str());
    order.unwrap_or_else(|| panic!("no order: {response}"))
}

fn code(response: &Value) -> Option<&str> {
    response["errors"][0]["extensions"]["code"].as_str()
}

#[tokio::test]
async fn self_hears_of_its_own_orders_alone_while_those_of_others_change() {
    let graph = Graph::new().await;
    for way in WAYS {
        for document in [UPDATED, FEED] {
            let mut own = graph.listen(way, ("1", "self"), document, json!({})).await;
            for _ in 0..2 {
                graph.place("2").await;
                let mine = graph.place("1").await;
                let told = next(&mut own).await;
                assert_eq!(order_of(&told), mine.id, "{way:?} {document}");
            }
            assert!(own.next().now_or_never().is_none(), "{way:?} {document}");
        }
    }
}

#[tokio::test]
async fn a_snapshot_for_self_shows_its_own_orders_alone_and_then_their_changes() {
    let graph = Graph::new().await;
    let mut mine = vec![graph.place("1").await.id];
    graph.place("2").await;
    for way in WAYS {
        let mut own = graph
            .subscribe(way, ("1", "self"), SNAPSHOT, json!({}))
            .await;
        let snapshot = next(&mut own).await;
        let shown = &snapshot["data"]["orderFeed"];
        let expected: Vec<Value> = mine.iter().map(|id| json!({"id": id})).collect();
        assert_eq!(
            *shown,
            json!({"complete": true, "orders": expected}),
            "{way:?}"
        );
        graph.place("2").await;
        let changed = graph.place("1").await;
        assert_eq!(order_of(&next(&mut own).await), changed.id, "{way:?}");
        assert!(own.next().now_or_never().is_none(), "{way:?}");
        mine.push(changed.id);
    }
}

#[tokio::test]
async fn self_that_resumes_is_told_of_its_own_orders_alone() {
    let graph = Graph::new().await;
    for way in WAYS {
        let mut own = graph
            .listen(way, ("1", "self"), WITH_CURSOR, json!({}))
            .await;
        graph.place("1").await;
        let cursor = next(&mut own).await["data"]["orderUpdated"]["cursor"].clone();
        assert!(cursor.is_string());
        drop(own);
        graph.place("2").await;
        let missed = graph.place("1").await;
        let mut own = graph
            .subscribe(way, ("1", "self"), WITH_CURSOR, json!({"after": cursor}))
            .await;
        assert_eq!(order_of(&next(&mut own).await), missed.id, "{way:?}");
        graph.place("2").await;
        let heard = graph.place("1").await;
        assert_eq!(order_of(&next(&mut own).await), heard.id, "{way:?}");
    }
}

#[tokio::test]
async fn a_cursor_of_the_feed_of_all_orders_or_of_another_customer_is_refused_with_its_field() {
    let graph = Graph::new().await;
    let all = ("9", "orders:read");
    let mut everything = graph.listen(Way::Alone, all, WITH_CURSOR, json!({})).await;
    let mut theirs = graph
        .listen(Way::Alone, ("2", "self"), WITH_CURSOR, json!({}))
        .await;
    graph.place("2").await;
    for other in [&mut everything, &mut theirs] {
        let cursor = next(other).await["data"]["orderUpdated"]["cursor"].clone();
        let variables = json!({"after": cursor});
        let mut own = graph
            .subscribe(Way::Alone, ("1", "self"), WITH_CURSOR, variables)
            .await;
        let refused = next(&mut own).await;
        assert_eq!(code(&refused), Some("BAD_USER_INPUT"), "{refused}");
        let error = &refused["errors"][0];
        assert_eq!(error["extensions"]["field"], "after", "{refused}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("`customerId` or `orderId`"), "{message}");
    }
}

#[tokio::test]
async fn self_that_names_the_order_of_somebody_else_hears_nothing_of_it() {
    let graph = Graph::new().await;
    for way in WAYS {
        let theirs = graph.place("2").await;
        let variables = json!({"order": theirs.id});
        let mut snapshot = graph
            .subscribe(way, ("1", "self"), SNAPSHOT, variables.clone())
            .await;
        let shown = next(&mut snapshot).await;
        assert_eq!(
            shown["data"]["orderFeed"],
            json!({"complete": true, "orders": []}),
            "{way:?}"
        );
        let mut own = graph
            .listen(way, ("1", "self"), OF_ORDER, variables.clone())
            .await;
        let mut everybody = graph
            .listen(way, ("9", "orders:read"), OF_ORDER, variables)
            .await;
        graph.publish(&advanced(&theirs)).await;
        assert_eq!(order_of(&next(&mut everybody).await), theirs.id, "{way:?}");
        for hears_nothing in [&mut snapshot, &mut own] {
            assert!(hears_nothing.next().now_or_never().is_none(), "{way:?}");
        }
    }
}

#[tokio::test]
async fn who_selects_the_same_with_other_rights_is_shown_what_those_rights_show() {
    let graph = Graph::new().await;
    // Each with whether the name is shown. The first three have the same subject, so only their scopes differ.
    let mut readers = [
        (("9", "orders:read"), false),
        (("9", "orders:read customers:read"), true),
        (("9", "orders:read operations"), false),
        (("1", "self"), true),
        (("1", "orders:read"), false),
    ];
    for _ in 0..2 {
        let mut subscriptions = Vec::new();
        for (bearer, is_shown) in readers {
            let responses = graph
                .listen(Way::Together, bearer, WITH_NAME, json!({}))
                .await;
            subscriptions.push((bearer, is_shown, responses));
        }
        // The second change finds the rendering that was cached for the first.
        for _ in 0..2 {
            let order = graph.place("1").await;
            for (bearer, is_shown, responses) in &mut subscriptions {
                let told = next(responses).await;
                if *is_shown {
                    assert_eq!(order_of(&told), order.id, "{bearer:?}");
                    let customer = &told["data"]["orderUpdated"]["order"]["customer"];
                    assert!(
                        customer["name"]["lastName"].is_string(),
                        "{bearer:?}: {told}"
                    );
                } else {
                    assert_eq!(code(&told), Some("FORBIDDEN"), "{bearer:?}: {told}");
                    assert!(told["data"].is_null(), "{bearer:?}: {told}");
                }
            }
        }
        // The first subscriber must not decide for the others.
        readers.reverse();
    }
}

#[tokio::test]
async fn two_customers_with_the_same_document_each_hear_of_and_see_their_own() {
    let graph = Graph::new().await;
    let mut subscriptions = Vec::new();
    for customer in ["1", "2"] {
        let responses = graph
            .listen(Way::Together, (customer, "self"), WITH_NAME, json!({}))
            .await;
        subscriptions.push((customer, responses));
    }
    for _ in 0..2 {
        let placed = [graph.place("1").await, graph.place("2").await];
        for (customer, responses) in &mut subscriptions {
            let told = next(responses).await;
            let expected = placed
                .iter()
                .find(|order| order.customer_id == *customer)
                .unwrap();
            assert_eq!(order_of(&told), expected.id);
            let shown = &told["data"]["orderUpdated"]["order"]["customer"];
            assert_eq!(shown["id"], *customer);
            assert!(shown["name"]["lastName"].is_string(), "{customer}: {told}");
        }
    }
    for (customer, responses) in &mut subscriptions {
        assert!(responses.next().now_or_never().is_none(), "{customer}");
    }
}
