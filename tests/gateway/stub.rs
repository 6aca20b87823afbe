//! Two small services in place of accounts and orders, with enough of the contract to test what the gateway does with
//! it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_graphql::{
    Context, Enum, Error, ErrorExtensions, ID, Object, Result, Schema, SimpleObject, Subscription,
};
use async_graphql_axum::{GraphQL, GraphQLSubscription};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, post_service};
use axum::{Json, Router};
use futures::Stream;
use serde_json::{Value, json};
use tandem_backends::free_port;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// One running stub service.
pub(crate) struct Stub {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    updates: broadcast::Sender<i32>,
    server: tokio::task::JoinHandle<()>,
}

impl Stub {
    /// The bodies of the GraphQL requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// Sends an update with this revision to all subscribers.
    pub(crate) fn update(&self, revision: i32) {
        let _ = self.updates.send(revision);
    }

    /// How many subscriptions are open.
    pub(crate) fn subscribers(&self) -> usize {
        self.updates.receiver_count()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An address at which no service listens, and none of another test will.
pub(crate) fn nowhere() -> String {
    format!("http://127.0.0.1:{}", free_port().unwrap())
}

#[derive(SimpleObject)]
#[graphql(shareable)]
struct Name {
    first_name: String,
    last_name: String,
}

fn name() -> Name {
    Name {
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
    }
}

mod accounts {
    use super::*;

    #[derive(SimpleObject)]
    pub(super) struct Customer {
        id: ID,
        #[graphql(shareable)]
        name: Name,
        revision: Option<i32>,
    }

    fn customer(id: ID) -> Customer {
        Customer {
            id,
            name: name(),
            revision: Some(7),
        }
    }

    pub(super) struct Query;

    #[Object]
    impl Query {
        async fn customer(&self, id: ID) -> Result<Option<Customer>> {
            if id.as_str() == "refused" {
                return Err(
                    Error::new("id `refused` is refused").extend_with(|_, extensions| {
                        extensions.set("code", "BAD_USER_INPUT");
                        extensions.set("field", "id");
                        extensions.set("cursor", "c-42");
                    }),
                );
            }
            if id.as_str() == "slow" {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
            Ok(Some(customer(id)))
        }

        #[graphql(entity)]
        async fn find_customer(&self, id: ID) -> Customer {
            customer(id)
        }
    }
}

mod orders {
    use super::*;

    #[derive(SimpleObject)]
    pub(super) struct Customer {
        id: ID,
        #[graphql(shareable)]
        name: Name,
        replica: Option<ReplicaState>,
    }

    #[derive(SimpleObject)]
    struct ReplicaState {
        revision: i32,
    }

    #[derive(Enum, Clone, Copy, PartialEq, Eq)]
    enum OrderStatus {
        Placed,
    }

    #[derive(SimpleObject)]
    struct Order {
        id: ID,
        status: OrderStatus,
        revision: i32,
        customer: Customer,
    }

    #[derive(SimpleObject)]
    struct OrderUpdate {
        cursor: String,
        order: Order,
    }

    fn customer(id: ID, revision: i32) -> Customer {
        Customer {
            id,
            name: name(),
            replica: Some(ReplicaState { revision }),
        }
    }

    pub(super) struct Query;

    #[Object]
    impl Query {
        async fn ordering_customer(&self, id: ID) -> Option<Customer> {
            Some(customer(id, 7))
        }

        #[graphql(entity)]
        async fn find_customer(&self, id: ID) -> Customer {
            customer(id, 7)
        }
    }

    pub(super) struct Subscription;

    fn follow(context: &Context<'_>) -> impl Stream<Item = i32> + use<> {
        let updates = context
            .data_unchecked::<broadcast::Sender<i32>>()
            .subscribe();
        futures::stream::unfold(updates, async |mut updates| {
            Some((updates.recv().await.ok()?, updates))
        })
    }

    #[Subscription]
    impl Subscription {
        async fn customer_updated(
            &self,
            context: &Context<'_>,
            id: ID,
        ) -> impl Stream<Item = Customer> {
            use futures::StreamExt;
            follow(context).map(move |revision| customer(id.clone(), revision))
        }

        async fn order_updated(
            &self,
            context: &Context<'_>,
            customer_id: Option<ID>,
        ) -> impl Stream<Item = OrderUpdate> {
            use futures::StreamExt;
            let id = customer_id.unwrap_or_else(|| "1".into());
            follow(context).map(move |revision| OrderUpdate {
                cursor: format!("cursor-{revision}"),
                order: Order {
                    id: "o-1".into(),
                    status: OrderStatus::Placed,
                    revision,
                    customer: customer(id.clone(), revision),
                },
            })
        }
    }
}

async fn record(
    State(requests): State<Arc<Mutex<Vec<String>>>>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path() != "/graphql" {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    requests
        .lock()
        .unwrap()
        .push(String::from_utf8_lossy(&body).into_owned());
    next.run(Request::from_parts(head, body.into())).await
}

async fn echo(uri: Uri, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let headers: serde_json::Map<String, Value> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap_or_default())))
        .collect();
    Json(
        json!({ "uri": uri.to_string(), "headers": headers, "body": String::from_utf8_lossy(&body) }),
    )
}

/// A response of unknown length that may break off.
fn in_parts(parts: Vec<std::result::Result<String, &'static str>>) -> Response {
    let parts = parts
        .into_iter()
        .map(|part| part.map_err(std::io::Error::other));
    Body::from_stream(futures::stream::iter(parts)).into_response()
}

async fn serve(app: Router, updates: broadcast::Sender<i32>) -> Stub {
    let requests = Arc::default();
    let app = app.layer(middleware::from_fn_with_state(
        Arc::clone(&requests),
        record,
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Stub {
        url,
        requests,
        updates,
        server,
    }
}

/// A stub of accounts.
pub(crate) async fn accounts() -> Stub {
    let schema = Schema::build(
        accounts::Query,
        async_graphql::EmptyMutation,
        async_graphql::EmptySubscription,
    )
    .enable_federation()
    .finish();
    let app = Router::new()
        .route("/graphql", post_service(GraphQL::new(schema)))
        .route("/accounts/customer/create", post(echo))
        .route(
            "/accounts/customer/print",
            get(async || {
                (
                    StatusCode::OK,
                    [("x-from", "accounts"), ("connection", "close")],
                    "printed",
                )
            }),
        );
    serve(app, broadcast::channel(16).0).await
}

/// A stub of orders.
pub(crate) async fn orders() -> Stub {
    let (updates, _) = broadcast::channel(16);
    let schema = Schema::build(
        orders::Query,
        async_graphql::EmptyMutation,
        orders::Subscription,
    )
    .enable_federation()
    .enable_subscription_in_federation()
    .data(updates.clone())
    .finish();
    let app = Router::new()
        .route("/graphql", post_service(GraphQL::new(schema.clone())))
        .route_service("/graphql/ws", GraphQLSubscription::new(schema))
        .route("/orders/list", get(echo))
        .route(
            "/orders/order/{id}",
            get(async |Path(id): Path<String>| match id.as_str() {
                "absent" => (StatusCode::NOT_FOUND, "Customer not found!").into_response(),
                "long" => Json(vec!["x".repeat(1_000); 1_000]).into_response(),
                "parts" => in_parts(vec![Ok("[1".to_owned()), Ok(",2]".to_owned())]),
                "broken" => {
                    // More than all buffers hold, so that the response has begun.
                    let mut parts = vec![Ok("1,".repeat(100_000)); 50];
                    parts.push(Err("the store is away"));
                    in_parts(parts)
                }
                _ => Json(json!({ "id": id })).into_response(),
            }),
        );
    serve(app, updates).await
}
