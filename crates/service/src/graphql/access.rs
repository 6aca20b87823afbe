//! The rights of an operation's caller, for resolvers.

use async_graphql::Context;
use tandem_authentication::{Access, Denial, Scope};

use super::error::ApiError;

/// The caller's rights. There are none if nothing upstream has set them.
#[must_use]
pub fn access(ctx: &Context<'_>) -> Access {
    ctx.data_opt::<Access>().cloned().unwrap_or_default()
}

/// Checks that the caller has `scope`.
///
/// # Errors
/// UNAUTHENTICATED or FORBIDDEN.
pub fn require(ctx: &Context<'_>, scope: Scope) -> Result<(), ApiError> {
    access(ctx).require(scope).map_err(refuse_access)
}

/// Checks that the caller has `scope`, or that the request is about the caller's own customer.
///
/// # Errors
/// UNAUTHENTICATED or FORBIDDEN.
pub fn require_or_own(ctx: &Context<'_>, scope: Scope, customer_id: &str) -> Result<(), ApiError> {
    access(ctx)
        .require_or_own(scope, customer_id)
        .map_err(refuse_access)
}

/// The error for a caller without the required rights.
#[must_use]
pub fn refuse_access(denial: Denial) -> ApiError {
    match denial {
        Denial::Unauthenticated => ApiError::unauthenticated(denial.to_string()),
        Denial::Forbidden(_) => ApiError::forbidden(denial.to_string()),
    }
}
