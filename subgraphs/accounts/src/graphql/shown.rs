//! What a mutation may return to a caller who may change a customer but not read it: the parts that the caller gave,
//! and no more. Otherwise a mutation that changes nothing would read any customer.

use async_graphql::Context;
use tandem_authentication::Scope;
use tandem_service::graphql::{ApiError, require, require_or_own};

/// The fields that are always shown: the id, the revision, and the times of creation and of the last change.
const ALWAYS: [&str; 5] = ["__typename", "id", "revision", "createdAt", "updatedAt"];

/// Checks that the caller may see every field that the mutation selects of its customer. `given` are the parts in its
/// input.
///
/// # Errors
/// FORBIDDEN if the caller may not. The check runs before anything is changed, so that a change that was made never
/// answers FORBIDDEN.
pub(super) fn require_shown(
    ctx: &Context<'_>,
    customer_id: Option<&str>,
    given: &[&str],
) -> Result<(), ApiError> {
    let may_read = match customer_id {
        Some(id) => require_or_own(ctx, Scope::CustomersRead, id),
        None => require(ctx, Scope::CustomersRead),
    };
    if may_read.is_ok() {
        return Ok(());
    }
    let hidden = ctx
        .field()
        .selection_set()
        .filter(|field| field.name() == "customer")
        .flat_map(|customer| customer.selection_set().collect::<Vec<_>>())
        .map(|field| field.name())
        .find(|name| !ALWAYS.contains(name) && !given.contains(name));
    match hidden {
        None => Ok(()),
        Some(name) => Err(ApiError::forbidden(format!(
            "this needs a token with the scope `{}`: without it a change shows what it was given, and not `{name}`; nothing was changed",
            Scope::CustomersRead
        ))),
    }
}
