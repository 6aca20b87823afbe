//! Reading one's own writes over GraphQL: what the caller of a mutation is told that it wrote, and how an operation that brings such a token
//! waits for it.

use async_graphql::{Context, Pos, ServerError, parser::types::OperationType};
use axum::http::HeaderMap;

use crate::error_code::ErrorCode;
use crate::graphql::error::ApiError;
use crate::web::consistency::{self, Of, Shows};
use tandem_authentication::Access;
use tandem_runtime::consistency::{Kind, Written};

/// Tells the caller of a mutation what it wrote, so that it can read it anywhere: `tandem-consistency`.
pub fn wrote(ctx: &Context<'_>, kind: Kind, id: &str, revision: i64) {
    if let Some(value) = consistency::header(kind, id, revision) {
        ctx.append_http_header(consistency::HEADER, value);
    }
}

/// Waits, before an operation of this kind, for what the bearer of these headers wrote, as far as it may ask about that; answers what is
/// not shown yet.
pub(super) async fn wait(
    shows: &Shows,
    headers: &HeaderMap,
    access: &Access,
    kind: OperationType,
) -> Vec<Written> {
    let of = match kind {
        // A command needs what it decides on, and must not wait for the log.
        OperationType::Mutation => Of::State,
        OperationType::Query | OperationType::Subscription => Of::StateAndAudit,
    };
    consistency::wait(shows, headers, access, of).await
}

/// The error beside an answer in which something may be missing that the caller wrote.
pub(super) fn error(behind: &[Written]) -> ServerError {
    let error = ApiError::new(ErrorCode::REPLICA_BEHIND, consistency::not_shown(behind));
    let mut error = async_graphql::Error::from(error).into_server_error(Pos::default());
    error.locations.clear();
    error
}
