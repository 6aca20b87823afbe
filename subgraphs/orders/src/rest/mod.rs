//! The REST routes. They keep the documented behaviour of the system that this one replaces.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tandem_authentication::Scope;
use tandem_event_path::{
    commands::Gate,
    store::{AggregateStore, StoreError},
};
use tandem_runtime::consistency::Kind;
use tandem_service::web::legacy::{ALL_ORDERS, ORDERS_OF_CUSTOMER, deprecate, replaced_by};
use tandem_service::web::{
    Problem,
    access::{Requester, denied},
    consistency::Behind,
};
use utoipa::OpenApi;

mod document;
mod list;
mod one;
mod sending;
#[cfg(test)]
mod tests;

use crate::{
    commands::Refused,
    domain::Order,
    replica::{Replica, event::is_customer_id},
};

/// The stores that the routes read.
#[derive(Clone)]
pub struct Rest {
    /// The replica of customers.
    pub replica: Replica,
    /// Their orders.
    pub orders: Arc<dyn AggregateStore<Order>>,
    /// The gate is closed while they are filled from the log. Until it opens, nothing is returned, because a document
    /// cannot express that it may be incomplete.
    pub gate: Gate,
}

/// The routes under `/orders`.
pub fn router(rest: Rest) -> Router {
    Router::new()
        .route(ALL_ORDERS.path, replaced_by(get(all), &ALL_ORDERS))
        .route(
            ORDERS_OF_CUSTOMER.path,
            replaced_by(get(of_customer), &ORDERS_OF_CUSTOMER),
        )
        .with_state(rest)
}

/// The OpenAPI description of the routes.
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
        (status = 503, description = "The store is away, or new and being filled from the log", content_type = "application/problem+json")
    )
)]
async fn all(State(rest): State<Rest>, Requester(access): Requester) -> Response {
    if let Err(denial) = access
        .require(Scope::OrdersRead)
        .and_then(|()| access.require(Scope::CustomersRead))
    {
        return denied(denial, "/orders/list").into_response();
    }
    if !rest.gate.is_open() {
        return filling();
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
        (status = 503, description = "The store is away, or new and being filled from the log, or does not show yet whom the bearer of `tandem-consistency` wrote", content_type = "application/problem+json")
    )
)]
async fn of_customer(
    State(rest): State<Rest>,
    Requester(access): Requester,
    behind: Option<Extension<Behind>>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    // A path that is not UTF-8 cannot be a customer's id.
    let id = path.map_or_else(|_| String::new(), |Path(id)| id);
    if let Err(denial) = access
        .require_or_own(Scope::OrdersRead, &id)
        .and_then(|()| access.require_or_own(Scope::CustomersRead, &id))
    {
        return denied(denial, &format!("/orders/order/{id}")).into_response();
    }
    let found = if !is_customer_id(&id) {
        Ok(None)
    } else if rest.gate.is_open() {
        one::body(rest, &id).await
    } else {
        return filling();
    };
    match found {
        Ok(Some(body)) => json(body),
        Ok(None) if behind.is_some_and(|Extension(behind)| behind.has(Kind::Customer, &id)) => {
            Problem::unavailable(format!(
                "orders does not know customer `{id}` yet, whom you wrote; ask again in a moment"
            ))
            .into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, "Customer not found!").into_response(),
        Err(error) => refuse(&error),
    }
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The response while the stores are filled. A missing customer may still be in the log, and so may orders of an
/// existing customer.
fn filling() -> Response {
    Problem::unavailable(Refused::Filling.to_string()).into_response()
}

fn refuse(error: &StoreError) -> Response {
    match error {
        StoreError::Unavailable(cause) => {
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
