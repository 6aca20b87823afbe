//! Renders the items of a feed as events. If many subscribers have the same selection, a change is resolved and written
//! once for all of them.
//!
//! The renderer uses an internal schema that clients cannot reach. It has a query field in place of each subscription,
//! and that field returns the present item. So an item is resolved in the same way as by the subscription itself.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Name, Object, Request, Schema, Value, Variables,
    parser::types::{
        DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection,
        SelectionSet,
    },
};
use axum::body::Bytes;
use futures::{Stream, StreamExt};
use lru::LruCache;
use tandem_authentication::{Access, Sight};
use tandem_service::graphql::{
    ApiError, ErrorCodes, access,
    written::{self, CURSOR, Events, Handover, PREVIOUS, Template},
};

use super::{
    Backing, error,
    feed_item::{OrderFeedItem, OrderUpdate},
};
use crate::live::{LiveError, item};

/// The number of renderings that are cached.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The item to write.
struct Item(Mutex<Option<Result<OrderFeedItem, ApiError>>>);

impl Item {
    fn take(ctx: &Context<'_>) -> Result<OrderFeedItem, ApiError> {
        let item = ctx.data_opt::<Self>();
        let item = item.and_then(|it| it.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        item.unwrap_or_else(|| Err(ApiError::internal("there is no item to write")))
    }
}

/// Returns the present item, under the name of its subscription.
struct Written;

#[Object(name = "Subscription")]
impl Written {
    async fn order_feed(&self, ctx: &Context<'_>) -> Result<OrderFeedItem, ApiError> {
        Item::take(ctx)
    }

    async fn order_updated(&self, ctx: &Context<'_>) -> Result<OrderUpdate, ApiError> {
        match Item::take(ctx)? {
            OrderFeedItem::Update(update) => Ok(update),
            OrderFeedItem::Snapshot(_) | OrderFeedItem::Heartbeat(_) => {
                Err(ApiError::internal("an item that is no update"))
            }
        }
    }
}

type WrittenSchema = Schema<Written, EmptyMutation, EmptySubscription>;

/// Renders items for all subscribers. Clones share the cached renderings.
#[derive(Clone)]
pub(super) struct Renderer {
    schema: WrittenSchema,
    remembered: Arc<Mutex<LruCache<Key, Arc<Rendering>>>>,
    numbers: Arc<AtomicU64>,
    backing: Arc<Backing>,
}

/// Everything that a rendering depends on: the selection and the values of its variables, as JSON, and what its
/// subscribers may see. async-graphql has already removed from the selection what `@skip` and `@include` exclude.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    selected: String,
    variables: String,
    sight: Sight,
}

/// A selection of the items of a feed, shared by all subscribers with the same selection.
struct Rendering {
    /// Identifies the rendering.
    number: u64,
    schema: WrittenSchema,
    document: ExecutableDocument,
    variables: Variables,
    /// The access of its first subscriber. The other subscribers may see the same.
    access: Access,
}

impl Renderer {
    /// Creates a renderer that resolves items with these services.
    pub(super) fn new(backing: Backing) -> Self {
        let shared = Arc::new(backing.clone());
        let schema = Schema::build(Written, EmptyMutation, EmptySubscription)
            // The schema that accepted the subscription has validated its document already.
            .validation_mode(async_graphql::ValidationMode::Fast)
            .extension(ErrorCodes)
            .data(backing)
            .finish();
        Self {
            schema,
            remembered: Arc::new(Mutex::new(LruCache::new(REMEMBERED))),
            numbers: Arc::default(),
            backing: shared,
        }
    }

    /// Hands the rendered events of a subscription over to the endpoint, if the endpoint asks for them. Otherwise, or
    /// if the selection cannot be rendered in this way, it returns the items.
    pub(super) fn hand_over<S>(&self, ctx: &Context<'_>, items: S) -> Option<S>
    where
        S: Stream<Item = Result<item::OrderItem, LiveError>> + Send + 'static,
    {
        let Some(handover) = ctx.data_opt::<Handover>() else {
            return Some(items);
        };
        let Some(rendering) = self.rendering(ctx, handover.may_be_kept()) else {
            return Some(items);
        };
        let backing = Arc::clone(&self.backing);
        let events: Events = items
            .then(move |item| {
                let (rendering, backing) = (Arc::clone(&rendering), Arc::clone(&backing));
                // A subscription waits most of the time. The box keeps the state of writing, and the item, out of the
                // future of the waiting subscription.
                Box::pin(async move { rendering.written(item, &backing).await })
            })
            .boxed();
        handover.give(events);
        None
    }

    fn rendering(&self, ctx: &Context<'_>, may_be_kept: bool) -> Option<Arc<Rendering>> {
        let env = ctx.query_env;
        let mut operation = env.operation.clone();
        operation.node.ty = OperationType::Query;
        without_arguments(&mut operation.node.selection_set.node)?;
        let mut used = Vec::new();
        let sets = env.fragments.values().map(|it| &it.node.selection_set.node);
        for set in sets.chain([&operation.node.selection_set.node]) {
            variables_of(set, &mut used);
        }
        let OperationDefinition {
            variable_definitions,
            ..
        } = &mut operation.node;
        variable_definitions.retain(|it| used.contains(&it.node.name.node));
        let mut variables = Variables::default();
        for name in used {
            if let Some(value) = env.variables.get(&name) {
                variables.insert(name, value.clone());
            }
        }
        let access = access(ctx).clone();
        let fragments: BTreeMap<_, _> = env.fragments.iter().collect();
        let json = (
            serde_json::to_string(&(&operation, fragments)),
            serde_json::to_string(&variables),
        );
        let key = match json {
            (Ok(selected), Ok(variables)) if may_be_kept => Some(Key {
                selected,
                variables,
                sight: access.sight(),
            }),
            _ => None,
        };
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = key.as_ref().and_then(|key| remembered.get(key)) {
            return Some(Arc::clone(known));
        }
        let rendering = Arc::new(Rendering {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            schema: self.schema.clone(),
            document: ExecutableDocument {
                operations: DocumentOperations::Single(operation),
                fragments: env.fragments.clone(),
            },
            variables,
            access,
        });
        if let Some(key) = key {
            remembered.put(key, Arc::clone(&rendering));
        }
        Some(rendering)
    }
}

impl Rendering {
    /// The event for one subscriber.
    async fn written(&self, item: Result<item::OrderItem, LiveError>, backing: &Backing) -> Bytes {
        match item {
            Ok(item::OrderItem::Update(update)) => {
                let Some(templates) = update.templates.clone() else {
                    let update = OrderUpdate::new(update, backing);
                    return self.resolved(Ok(OrderFeedItem::Update(update))).await;
                };
                let (cursor, previous) = (update.cursor.clone(), update.previous.clone());
                let cell = templates.of(self.number);
                let template = cell.get_or_init(|| async {
                    let marked = OrderUpdate::new(
                        item::OrderUpdate {
                            cursor: CURSOR.text().into(),
                            previous: PREVIOUS.text().into(),
                            ..update
                        },
                        backing,
                    );
                    Template::of(&self.resolved(Ok(OrderFeedItem::Update(marked))).await)
                });
                template.await.filled(&cursor, &previous)
            }
            Ok(item) => {
                let item = OrderFeedItem::new(item, backing);
                self.resolved(Ok(item)).await
            }
            Err(error) => self.resolved(Err(error::of_live(error))).await,
        }
    }

    async fn resolved(&self, item: Result<OrderFeedItem, ApiError>) -> Bytes {
        let mut request = Request::new("")
            .variables(self.variables.clone())
            .data(self.access.clone())
            .data(Item(Mutex::new(Some(item))));
        request.set_parsed_query(self.document.clone());
        // A subscription writes rarely. The box keeps the state of the execution out of its future.
        let response = Box::pin(self.schema.execute(request)).await;
        written::event(&written::response(&response))
    }
}

/// Removes the arguments of the root fields, because the present item already answers them. `None` if a root field is
/// in a named fragment, which other fields may share.
fn without_arguments(set: &mut SelectionSet) -> Option<()> {
    for selection in &mut set.items {
        match &mut selection.node {
            Selection::Field(field) => field.node.arguments.clear(),
            Selection::InlineFragment(fragment) => {
                without_arguments(&mut fragment.node.selection_set.node)?;
            }
            Selection::FragmentSpread(_) => return None,
        }
    }
    Some(())
}

/// Collects the variables that a selection uses.
fn variables_of(set: &SelectionSet, used: &mut Vec<Name>) {
    for selection in &set.items {
        let (directives, inner) = match &selection.node {
            Selection::Field(field) => {
                for (_, value) in &field.node.arguments {
                    let _ = value.node.clone().into_const_with(|name| note(name, used));
                }
                (&field.node.directives, Some(&field.node.selection_set.node))
            }
            Selection::InlineFragment(fragment) => (
                &fragment.node.directives,
                Some(&fragment.node.selection_set.node),
            ),
            Selection::FragmentSpread(spread) => (&spread.node.directives, None),
        };
        for directive in directives {
            for (_, value) in &directive.node.arguments {
                let _ = value.node.clone().into_const_with(|name| note(name, used));
            }
        }
        if let Some(inner) = inner {
            variables_of(inner, used);
        }
    }
}

/// Adds a variable to the used ones. Its value does not matter here.
fn note(name: Name, used: &mut Vec<Name>) -> Result<Value, Infallible> {
    if !used.contains(&name) {
        used.push(name);
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::Ordering;

    use async_graphql::Response;
    use futures::{FutureExt, stream::BoxStream};
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        graphql::{OrdersSchema, schema},
        test_support::{LIMIT, World, event},
    };

    struct Subscriptions {
        world: World,
        schema: OrdersSchema,
    }

    impl Subscriptions {
        async fn new() -> Self {
            let world = World::new().await;
            world.customer("1").await;
            timeout(LIMIT, world.backing.live.orders.begun())
                .await
                .unwrap();
            let schema = schema(world.backing.clone());
            Self { world, schema }
        }

        fn request(document: &str, variables: serde_json::Value) -> Request {
            Request::new(document)
                .variables(Variables::from_json(variables))
                .data(Access::Open)
        }

        /// The responses as they are resolved for this subscriber alone.
        fn own(
            &self,
            document: &str,
            variables: serde_json::Value,
        ) -> BoxStream<'static, Response> {
            let mut responses = self
                .schema
                .execute_stream(Self::request(document, variables));
            let early = responses.next().now_or_never();
            assert!(early.is_none(), "{document}: {early:?}");
            responses
        }

        /// The events as they are written for all subscribers.
        async fn shared(&self, document: &str, variables: serde_json::Value) -> Events {
            let handover = Handover::of(document);
            let request = Self::request(document, variables).data(handover.clone());
            let mut responses = self.schema.execute_stream(request);
            let first = timeout(LIMIT, responses.next()).await.unwrap();
            assert!(first.is_none(), "{first:?}");
            handover.take().unwrap()
        }

        async fn change(&self) {
            let order = self.world.place("1", "1").await;
            self.world.order_log.append(0, &event(&order));
            // The change is made within the tolerated clock skew after the feed began, so the audit trail must have it.
            self.world.audit_everything().await;
        }
    }

    async fn next<T>(responses: &mut BoxStream<'static, T>) -> T {
        timeout(LIMIT, responses.next()).await.unwrap().unwrap()
    }

    const DOCUMENTS: [&str; 4] = [
        "subscription($w: Boolean!, $n: Int) { feed: orderFeed(customerId: \"1\") { kind: __typename ... on OrderUpdate {
            at: cursor previous again: cursor type publishedAt order { ...o customer @include(if: $w) { name { lastName } } } } } }
            fragment o on Order { id total changes(first: $n) { nodes { revision } } }",
        "subscription($c: ID) { u: orderUpdated(customerId: $c) { ... on OrderUpdate { cursor previous order { id status } } } }",
        "subscription One($c: ID) { orderUpdated(customerId: $c) { previous order { items { product { title } } } } }",
        "subscription($c: ID) { orderUpdated(customerId: $c) { order { __typename } } }",
    ];

    #[tokio::test]
    async fn what_is_written_for_all_is_what_each_would_be_answered() {
        let subscriptions = Subscriptions::new().await;
        let variables = json!({"w": true, "n": 5, "c": "1"});
        for document in DOCUMENTS {
            let mut own = subscriptions.own(document, variables.clone());
            let mut shared = [
                subscriptions.shared(document, variables.clone()).await,
                subscriptions.shared(document, variables.clone()).await,
            ];
            assert!(shared[0].next().now_or_never().is_none());
            for _ in 0..2 {
                subscriptions.change().await;
                let expected = written::response(&next(&mut own).await);
                assert!(!expected.starts_with(b"{\"errors"), "{document}");
                let expected = written::event(&expected);
                let [one, two] = &mut shared;
                let (one, two) = (next(one).await, next(two).await);
                for event in [&one, &two] {
                    assert_eq!(
                        String::from_utf8_lossy(event),
                        String::from_utf8_lossy(&expected)
                    );
                }
                let is_shared = one.as_ptr() == two.as_ptr();
                assert_eq!(
                    is_shared,
                    Handover::of(document).may_be_kept(),
                    "{document}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_of_the_log_is_written_as_each_would_be_answered() {
        let subscriptions = Subscriptions::new().await;
        let document = "subscription($a: String) { orderUpdated(after: $a) { cursor } }";
        // `{"9":0}`: a partition that the log does not have.
        let variables = json!({"a": "eyI5IjowfQ"});
        let request = Subscriptions::request(document, variables.clone());
        let mut own = subscriptions.schema.execute_stream(request);
        let expected = written::event(&written::response(&next(&mut own).await));
        let mut shared = subscriptions.shared(document, variables).await;
        assert_eq!(
            String::from_utf8_lossy(&next(&mut shared).await),
            String::from_utf8_lossy(&expected)
        );
        assert!(String::from_utf8_lossy(&expected).contains("BAD_USER_INPUT"));
    }

    #[tokio::test]
    async fn what_hundreds_select_alike_is_resolved_once_and_what_they_do_not_is_not() {
        let subscriptions = Subscriptions::new().await;
        let document =
            "subscription($c: ID, $w: Boolean!) { orderFeed(customerId: $c) { ... on OrderUpdate {
            cursor previous order { id customer @include(if: $w) { name { lastName } } } } } }";
        let mut all = Vec::new();
        for number in 0..300 {
            let variables = json!({"c": "1", "w": number < 200});
            all.push(subscriptions.shared(document, variables).await);
        }
        subscriptions.change().await;
        subscriptions
            .world
            .customers
            .gets
            .store(0, Ordering::SeqCst);
        for (number, events) in all.iter_mut().enumerate() {
            let event = next(events).await;
            let has_name = String::from_utf8_lossy(&event).contains("lastName");
            assert_eq!(has_name, number < 200);
        }
        assert_eq!(subscriptions.world.customers.gets.load(Ordering::SeqCst), 1);
    }
}
