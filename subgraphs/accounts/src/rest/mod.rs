//! The REST routes. They keep the documented behaviour of the system that this one replaces.

mod body;
mod schemas;

use std::sync::LazyLock;

use axum::{
    Extension, Router,
    extract::{FromRequestParts, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tandem_authentication::Scope;
use tandem_event_path::{commands::CommandError, store::StoreError};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::{consistency::Kind, trace_context::TraceContext};
use tandem_service::web::legacy::{CREATE_CUSTOMER, PRINT_CUSTOMER, deprecate, replaced_by};
use tandem_service::web::{
    FieldError, Problem, ProblemJson,
    access::{Denied, Requester, denied},
    consistency,
    json::parse_json,
};
use utoipa::OpenApi;

use self::body::{AddressBody, CreditCardBody, CustomerBody};
use crate::{
    customers::{Customers, Failure, Origin, WAITING},
    domain::{CreateCustomer, Customer, CustomerError, Violation},
};

/// The caller that is recorded for these routes, because the documented routes identify no callers.
const CALLER: &str = "legacy-rest";

const CREATE: &str = CREATE_CUSTOMER.path;

/// The published sample, byte for byte.
const SAMPLE: &str = include_str!("sample-customer.json");

/// The documented routes.
pub fn router(customers: Customers) -> Router {
    Router::new()
        .route(CREATE, replaced_by(post(create), &CREATE_CUSTOMER))
        .route(
            PRINT_CUSTOMER.path,
            replaced_by(get(print), &PRINT_CUSTOMER),
        )
        .with_state(customers)
}

/// The OpenAPI 3.1 document of these routes.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    deprecate(&mut document);
    document
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tandem accounts",
        description = "The documented REST routes of accounts. Everything else is GraphQL, at POST /graphql."
    ),
    paths(create, print),
    components(schemas(CustomerBody, AddressBody, CreditCardBody, Problem, FieldError))
)]
struct Document;

/// Makes the customer, or makes the one with that id equal to what is given.
///
/// Lists that are not given are empty. The same document again changes nothing.
#[utoipa::path(
    post,
    path = "/accounts/customer/create",
    tag = "customers",
    request_body(content = CustomerBody, example = json!(serde_json::from_str::<serde_json::Value>(SAMPLE).unwrap_or_default())),
    responses(
        (status = 201, description = "Done.", body = String, content_type = "text/plain", example = "Customer account created!"),
        (status = 400, description = "The body is not JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Authentication is on, and there is no token.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token lacks the scope `customers:write`.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The id was a customer's who has been erased; it is not used again.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not declared as JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is not acceptable, and `errors` names it; or all together are too much to be published.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is away.", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(customers): State<Customers>,
    Creator(by): Creator,
    trace: Option<Extension<TraceContext>>,
    ProblemJson(body): ProblemJson<CustomerBody>,
) -> Result<Response, Problem> {
    let origin = Origin {
        by,
        trace: trace.map(|Extension(trace)| trace),
    };
    let done = async {
        let command = CreateCustomer::try_from(body).map_err(|error| refuse(&error))?;
        customers
            .replace_or_create(command, &origin)
            .await
            .map_err(problem)
    };
    let customer: Customer = done
        .await
        .map_err(|problem: Problem| problem.with_instance(CREATE))?;
    let mut response = (StatusCode::CREATED, "Customer account created!").into_response();
    let id = customer.customer_id().as_str();
    if let Some(token) = consistency::header(Kind::Customer, id, customer.revision()) {
        response.headers_mut().insert(consistency::HEADER, token);
    }
    Ok(response)
}

/// The caller of the create route, who has the right to create customers. The right is checked before the body is read.
struct Creator(String);

impl<S: Sync> FromRequestParts<S> for Creator {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denied> {
        let Ok(Requester(access)) = Requester::from_request_parts(parts, state).await;
        access
            .require(Scope::CustomersWrite)
            .map_err(|denial| denied(denial, CREATE))?;
        Ok(Self(access.subject().unwrap_or(CALLER).to_owned()))
    }
}

/// A sample customer document: what the create route takes.
#[utoipa::path(
    get,
    path = "/accounts/customer/print",
    tag = "customers",
    responses((status = 200, description = "A sample.", body = CustomerBody))
)]
async fn print() -> Result<Response, Problem> {
    let text = PRINTED.as_deref().ok_or_else(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The sample in the form in which the create route reads it, serialized once.
static PRINTED: LazyLock<Option<String>> = LazyLock::new(|| {
    let sample = parse_json::<CustomerBody>(SAMPLE.as_bytes()).ok()?;
    serde_json::to_string(&sample)
        .inspect_err(|error| tracing::error!(%error, "the sample cannot be written"))
        .ok()
});

fn refuse(violation: &Violation) -> Problem {
    let reason = violation.problem.to_string();
    Problem::invalid_field(match reason.split_once(": ") {
        Some((reason, expected)) => FieldError::new(&violation.field, reason, expected),
        None => FieldError {
            field: violation.field.clone(),
            reason,
            expected: None,
        },
    })
}

fn problem(failure: Failure) -> Problem {
    match failure {
        CommandError::Rejected(CustomerError::Invalid(violation)) => refuse(&violation),
        CommandError::Rejected(
            refused @ (CustomerError::AlreadyExists(_)
            | CustomerError::Erased(_)
            | CustomerError::ErasedSince(_)
            | CustomerError::NotFound(_)
            | CustomerError::RevisionConflict { .. }),
        ) => Problem::conflict(refused.to_string()),
        CommandError::Unavailable(error @ StoreError::Unavailable(_)) => {
            tracing::warn!(%error, "the store is away");
            Problem::unavailable(match error.public_reason() {
                Some(reason) => format!("the store of accounts fails: {reason}"),
                None => "the store of accounts does not answer; ask again in a moment".to_owned(),
            })
        }
        CommandError::TooLarge { .. } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY).with_detail(failure.to_string())
        }
        CommandError::KeyReused => Problem::conflict(failure.to_string()),
        CommandError::Filling => {
            Problem::unavailable("this store is being filled from the log; ask again in a moment")
        }
        CommandError::Waiting => Problem::unavailable(WAITING),
        CommandError::Contended => Problem::unavailable(
            "the customer is being changed by too many at once; ask again in a moment",
        ),
        CommandError::Backlogged => Problem::unavailable(
            "too many changes of this customer wait to be published; ask again when Kafka is back",
        ),
        CommandError::Rejected(CustomerError::Vault(error)) => accident(&error),
        CommandError::Rejected(error @ CustomerError::NotEncoded(_)) => accident(&error),
        CommandError::Unavailable(error) => accident(&error),
    }
}

fn accident(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "internal error");
    Problem::internal()
}
