//! What the answer to a change shows to who may change a customer and not read one: what they gave, and no more. Otherwise a change of
//! nothing would read everybody.

use async_graphql::Context;
use tandem_authentication::Scope;
use tandem_service::graphql::{ApiError, require, require_or_own};

/// What is shown whatever was given: which customer it is, at which revision, and when it was made and changed.
const ALWAYS: [&str; 5] = ["__typename", "id", "revision", "createdAt", "updatedAt"];

/// Whether the caller may see all that the present mutation selects of its customer. `given` are the parts that its input has.
///
/// # Errors
/// FORBIDDEN where it may not. It is asked before anything is changed: of a change that was made nobody should hear that it is forbidden.
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
