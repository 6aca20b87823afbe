//! Refusals by the GraphQL endpoint before the operation runs, in the form that GraphQL clients and the gateway read.

use async_graphql::{Response as GraphQlResponse, ServerError};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::problem::Problem;
use crate::error_code::ErrorCode;

/// The path of queries and mutations.
pub(crate) const PATH: &str = "/graphql";

/// A problem that occurred before the operation or instead of it, as a GraphQL response.
pub(crate) fn refused(problem: Problem) -> Response {
    let status = problem.status_code();
    let code = match status {
        StatusCode::SERVICE_UNAVAILABLE => ErrorCode::UNAVAILABLE,
        _ if status.is_client_error() => ErrorCode::BAD_USER_INPUT,
        _ => ErrorCode::INTERNAL,
    };
    let message = problem.detail.unwrap_or_else(|| problem.title.into_owned());
    let mut error = ServerError::new(message, None);
    let extensions = error.extensions.get_or_insert_default();
    extensions.set("code", code.as_str());
    let answer = Json(GraphQlResponse::from_errors(vec![error]));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return (status, [(header::RETRY_AFTER, "1")], answer).into_response();
    }
    (status, answer).into_response()
}
