//! Converts internal errors to the errors that clients may see.

use tandem_event_path::store::StoreError;
use tandem_service::graphql::{ApiError, ErrorCode};

use crate::{commands::Refused, domain::OrderError, live::LiveError};

pub(super) fn of_store(error: &StoreError) -> ApiError {
    match error {
        StoreError::Unavailable(cause) => {
            tracing::warn!(cause, "the store is away");
            ApiError::unavailable(match error.public_reason() {
                Some(reason) => format!("the store of orders fails: {reason}"),
                None => "the store of orders is away; try again in a moment".to_owned(),
            })
        }
        StoreError::Corrupt(cause) => ApiError::internal(cause),
    }
}

/// The error for something that is missing while the store is filled: it may still be in the log.
pub(super) fn filling() -> ApiError {
    ApiError::unavailable(Refused::Filling.to_string())
}

/// Orders does not know this customer.
const CUSTOMER_UNKNOWN: ErrorCode = ErrorCode("CUSTOMER_UNKNOWN");
/// The present status of the order does not allow this step.
const INVALID_TRANSITION: ErrorCode = ErrorCode("INVALID_TRANSITION");
/// The subscriber was too slow. `extensions.cursor` is where to resume.
const SUBSCRIPTION_LAGGED: ErrorCode = ErrorCode("SUBSCRIPTION_LAGGED");

/// The replica does not hold the requested revision yet, or does not know the customer yet. The error does not promise
/// that it ever will.
pub(super) fn replica_behind(wanted: u64, actual: Option<u64>) -> ApiError {
    match actual {
        Some(actual) => ApiError::new(
            ErrorCode::REPLICA_BEHIND,
            format!(
                "revision {wanted} was asked for, the replica holds revision {actual}; ask again in a moment"
            ),
        )
        .with("actualRevision", actual),
        None => ApiError::new(
            ErrorCode::REPLICA_BEHIND,
            "orders knows no customer with this id yet, also after waiting for one; check the id, and ask again if the customer \
             was created",
        ),
    }
}

/// The caller wrote this customer, but the replica does not show the customer yet.
pub(super) fn customer_behind(customer_id: &str) -> ApiError {
    let message = format!(
        "orders does not know customer `{customer_id}` yet, whom you wrote; nothing was ordered: ask again in a moment"
    );
    ApiError::new(ErrorCode::REPLICA_BEHIND, message).with_field("input.customerId")
}

/// The error of a refused command. `input` is the path of the argument that the fields in the rules belong to, such as
/// `input.`.
pub(super) fn of_command(refused: Refused, input: &str) -> ApiError {
    match refused {
        Refused::Rule(rule) => of_rule(&rule, input),
        Refused::Contended | Refused::Backlogged | Refused::Filling | Refused::Waiting => {
            ApiError::unavailable(refused.to_string())
        }
        Refused::KeyReused => ApiError::key_reused(refused.to_string()),
        Refused::TooLarge { .. } => {
            // A cancellation adds only its reason, so the reason must be too large.
            let field = input.strip_suffix('.').unwrap_or("reason");
            ApiError::bad_user_input(field, refused.to_string())
        }
        Refused::Store(error) => of_store(&error),
        Refused::Event(error) => ApiError::internal(error),
        Refused::Key(error) => ApiError::internal(error),
    }
}

fn of_rule(rule: &OrderError, input: &str) -> ApiError {
    match rule {
        OrderError::Invalid { field, problem } => {
            let field = format!("{input}{field}");
            let message = format!("`{field}` {problem}");
            ApiError::bad_user_input(field, message)
        }
        OrderError::NotFound { .. } => ApiError::not_found(rule.to_string()),
        OrderError::CustomerUnknown { customer_id } => {
            let message = format!("orders knows no customer `{customer_id}`; create it first");
            ApiError::new(CUSTOMER_UNKNOWN, message).with_field(format!("{input}customerId"))
        }
        OrderError::RevisionConflict { expected, actual } => {
            ApiError::revision_conflict(expected.unsigned_abs(), actual.unsigned_abs())
                .with_field("expectedRevision")
        }
        OrderError::InvalidTransition { from, to } => {
            ApiError::new(INVALID_TRANSITION, rule.to_string())
                .with("from", from.name())
                .with("to", to.name())
        }
    }
}

pub(super) fn of_live(error: LiveError) -> ApiError {
    match error {
        LiveError::BadCursor(problem) => {
            ApiError::bad_user_input("after", format!("`after` {problem}"))
        }
        LiveError::Lagged {
            cursor: Some(cursor),
        } => ApiError::new(
            SUBSCRIPTION_LAGGED,
            "updates came faster than they were taken; subscribe again with `after` set to `extensions.cursor`",
        )
        .with("cursor", cursor),
        LiveError::Lagged { cursor: None } => ApiError::new(
            SUBSCRIPTION_LAGGED,
            "updates came faster than they were taken; subscribe again",
        ),
    }
}
