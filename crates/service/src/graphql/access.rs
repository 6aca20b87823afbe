//! What the caller of an operation may do, as resolvers ask it.

use async_graphql::Context;
use tandem_authentication::{Access, Denial, Scope};

use super::error::ApiError;

/// The caller's rights. Where nobody decided about them there are none.
#[must_use]
pub fn access(ctx: &Context<'_>) -> Access {
    ctx.data_opt::<Access>().cloned().unwrap_or_default()
}

/// Whether the caller may do what needs `scope`.
///
/// # Errors
/// UNAUTHENTICATED or FORBIDDEN.
pub fn require(ctx: &Context<'_>, scope: Scope) -> Result<(), ApiError> {
    access(ctx).require(scope).map_err(refuse_access)
}

/// Whether the caller may do what needs `scope`, or concerns themselves as a customer.
///
/// # Errors
/// UNAUTHENTICATED or FORBIDDEN.
pub fn require_or_own(ctx: &Context<'_>, scope: Scope, customer_id: &str) -> Result<(), ApiError> {
    access(ctx)
        .require_or_own(scope, customer_id)
        .map_err(refuse_access)
}

/// What a client sees that may not do what it asked for.
#[must_use]
pub fn refuse_access(denial: Denial) -> ApiError {
    match denial {
        Denial::Unauthenticated => ApiError::unauthenticated(denial.to_string()),
        Denial::Forbidden(_) => ApiError::forbidden(denial.to_string()),
    }
}
