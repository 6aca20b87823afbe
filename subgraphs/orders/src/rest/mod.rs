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
use tandem_kit::{
    store::{AggregateStore, StoreError},
    web::Problem,
};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::OpenApi;

mod document;
mod listing;
#[cfg(test)]
mod tests;

use crate::{
    domain::Order,
    replica::{Replica, event::is_customer_id},
};
use listing::Listing;

/// What the routes answer from.
#[derive(Clone)]
pub struct Rest {
    /// Customers as orders knows them.
    pub replica: Replica,
    /// Their orders.
    pub orders: Arc<dyn AggregateStore<Order>>,
}

/// The routes under `/orders`.
pub fn router(rest: Rest) -> Router {
    Router::new()
        .route("/orders/list", get(list))
        .route("/orders/order/{customer_id}", get(of_customer))
        .with_state(rest)
}

/// The description of the routes.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tandem orders",
        description = "Customers, as orders knows them, with their orders."
    ),
    paths(list, of_customer),
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
        (status = 503, description = "The store is away", content_type = "application/problem+json")
    )
)]
async fn list(State(rest): State<Rest>) -> Response {
    answer(Listing::of_all(rest).await)
}

/// One customer with all orders.
#[utoipa::path(
    get,
    path = "/orders/order/{customerId}",
    tag = "orders",
    params(("customerId" = String, Path, description = "1 to 64 of A-Z a-z 0-9 _ -", example = "123456")),
    responses(
        (status = 200, description = "The customer with all orders", body = document::CustomerDocument),
        (status = 404, description = "Orders knows no such customer", body = String, content_type = "text/plain", example = "Customer not found!"),
        (status = 503, description = "The store is away", content_type = "application/problem+json")
    )
)]
async fn of_customer(State(rest): State<Rest>, Path(id): Path<String>) -> Response {
    let customer = match rest.replica.get(&id).await {
        _ if !is_customer_id(&id) => None,
        Ok(customer) => customer.filter(|customer| !customer.erased),
        Err(error) => return refuse(&error),
    };
    match customer {
        Some(customer) => answer(Listing::of_one(rest, customer).await),
        None => (StatusCode::NOT_FOUND, "Customer not found!").into_response(),
    }
}

fn answer(listing: Result<Listing, StoreError>) -> Response {
    match listing {
        Ok(listing) => (
            [(header::CONTENT_TYPE, "application/json")],
            Body::from_stream(ReceiverStream::new(listing.send())),
        )
            .into_response(),
        Err(error) => refuse(&error),
    }
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
