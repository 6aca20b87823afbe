//! Read-your-writes over GraphQL: a mutation returns a consistency token, and an operation that brings one waits until
//! those writes are visible.

use async_graphql::{Context, Pos, ServerError, parser::types::OperationType};
use axum::http::HeaderMap;

use crate::error_code::ErrorCode;
use crate::graphql::error::ApiError;
use crate::web::consistency::{self, Of, Shows};
use tandem_authentication::Access;
use tandem_runtime::consistency::{Kind, Written};

/// Adds the header `tandem-consistency` to the answer of a mutation. With this token the caller can read its own write
/// anywhere.
pub fn wrote(ctx: &Context<'_>, kind: Kind, id: &str, revision: i64) {
    if let Some(value) = consistency::header(kind, id, revision) {
        ctx.append_http_header(consistency::HEADER, value);
    }
}

/// Waits, before an operation of this kind, for the writes in the token, as far as its bearer may ask about them.
/// Returns the writes that are not visible yet.
pub(super) async fn wait(
    shows: &Shows,
    headers: &HeaderMap,
    access: &Access,
    kind: OperationType,
) -> Vec<Written> {
    let of = match kind {
        // A command needs the state that it decides on. It must not wait for the log.
        OperationType::Mutation => Of::State,
        OperationType::Query | OperationType::Subscription => Of::StateAndAudit,
    };
    consistency::wait(shows, headers, access, of).await
}

/// The error beside a response that may miss something that the caller wrote.
pub(super) fn error(behind: &[Written]) -> ServerError {
    let error = ApiError::new(ErrorCode::REPLICA_BEHIND, consistency::not_shown(behind));
    let mut error = async_graphql::Error::from(error).into_server_error(Pos::default());
    error.locations.clear();
    error
}
