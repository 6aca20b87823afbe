//! A request to the GraphQL endpoint that is refused before the operation: in the shape that a GraphQL client, and the gateway, reads.

use async_graphql::{Response as GraphQlResponse, ServerError};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::problem::Problem;
use crate::error_code::ErrorCode;

/// Where queries and mutations are taken.
pub(crate) const PATH: &str = "/graphql";

/// A problem that was met before the operation, or in its place, as a GraphQL response.
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
