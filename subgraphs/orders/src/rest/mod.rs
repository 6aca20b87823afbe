//! The REST routes, as documented for the system that this one replaces.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tandem_authentication::Scope;
use tandem_event_path::store::{AggregateStore, StoreError};
use tandem_service::web::legacy::{deprecate, replaced_by};
use tandem_service::web::{
    Problem,
    access::{Requester, denied},
};
use utoipa::OpenApi;

mod document;
mod list;
mod one;
mod sending;
#[cfg(test)]
mod tests;

use crate::{
    domain::Order,
    replica::{Replica, event::is_customer_id},
};

/// What the routes answer from.
#[derive(Clone)]
pub struct Rest {
    /// Customers as orders knows them.
    pub replica: Replica,
    /// Their orders.
    pub orders: Arc<dyn AggregateStore<Order>>,
}

/// What replaces the routes.
const ALL_OPERATION: &str = "query Orders($after: String) { orders(first: 100, after: $after) { nodes { id status total customer { id name { firstName lastName } } } pageInfo { hasNextPage endCursor } } }";
const ONE_OPERATION: &str = "query OrderingCustomer($id: ID!) { orderingCustomer(id: $id) { id name { firstName lastName } orders { nodes { id status total } } } }";

/// The routes under `/orders`.
pub fn router(rest: Rest) -> Router {
    Router::new()
        .route(
            "/orders/list",
            replaced_by(get(all), "Orders", ALL_OPERATION),
        )
        .route(
            "/orders/order/{customer_id}",
            replaced_by(get(of_customer), "OrderingCustomer", ONE_OPERATION),
        )
        .with_state(rest)
}

/// The description of the routes.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    let mut document = Description::openapi();
    deprecate(&mut document);
    document
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tandem orders",
        description = "Customers, as orders knows them, with their orders."
    ),
    paths(all, of_customer),
    components(schemas(document::CustomerDocument))
)]
struct Description;

/// All customers with their orders.
#[utoipa::path(
    get,
    path = "/orders/list",
    tag = "orders",
    responses(
        (status = 200, description = "Every customer with all orders, in order of id", body = Vec<document::CustomerDocument>),
        (status = 401, description = "Authentication is on, and there is no token", content_type = "application/problem+json"),
        (status = 403, description = "The token has not both scopes `orders:read` and `customers:read`", content_type = "application/problem+json"),
        (status = 503, description = "The store is away", content_type = "application/problem+json")
    )
)]
async fn all(State(rest): State<Rest>, Requester(access): Requester) -> Response {
    if let Err(denial) = access
        .require(Scope::OrdersRead)
        .and_then(|()| access.require(Scope::CustomersRead))
    {
        return denied(denial, "/orders/list").into_response();
    }
    match list::body(rest).await {
        Ok(body) => json(body),
        Err(error) => refuse(&error),
    }
}

/// One customer with all orders.
#[utoipa::path(
    get,
    path = "/orders/order/{customerId}",
    tag = "orders",
    params(("customerId" = String, Path, description = "1 to 64 of A-Z a-z 0-9 _ -", example = "123456")),
    responses(
        (status = 200, description = "The customer with all orders", body = document::CustomerDocument),
        (status = 401, description = "Authentication is on, and there is no token", content_type = "application/problem+json"),
        (status = 403, description = "The token has neither both scopes `orders:read` and `customers:read` nor `self` of this customer", content_type = "application/problem+json"),
        (status = 404, description = "Orders knows no such customer", body = String, content_type = "text/plain", example = "Customer not found!"),
        (status = 503, description = "The store is away", content_type = "application/problem+json")
    )
)]
async fn of_customer(
    State(rest): State<Rest>,
    Requester(access): Requester,
    Path(id): Path<String>,
) -> Response {
    if let Err(denial) = access
        .require_or_own(Scope::OrdersRead, &id)
        .and_then(|()| access.require_or_own(Scope::CustomersRead, &id))
    {
        return denied(denial, &format!("/orders/order/{id}")).into_response();
    }
    let found = if is_customer_id(&id) {
        one::body(rest, &id).await
    } else {
        Ok(None)
    };
    match found {
        Ok(Some(body)) => json(body),
        Ok(None) => (StatusCode::NOT_FOUND, "Customer not found!").into_response(),
        Err(error) => refuse(&error),
    }
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn refuse(error: &StoreError) -> Response {
    match error {
        StoreError::Away(cause) => {
            tracing::warn!(cause, "the store is away");
            Problem::unavailable("the store of orders is away; try again in a moment")
                .into_response()
        }
        StoreError::Corrupt(cause) => {
            tracing::error!(cause, "a list could not be read");
            Problem::internal().into_response()
        }
    }
}
