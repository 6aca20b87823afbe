//! Turns what went wrong inside into what a client may see.

use tandem_kit::{
    graphql::{ApiError, ErrorCode},
    store::StoreError,
};

use crate::{commands::Refused, domain::OrderError, live::LiveError};

pub(super) fn of_store(error: &StoreError) -> ApiError {
    match error {
        StoreError::Away(cause) => {
            tracing::warn!(cause, "the store is away");
            ApiError::unavailable("the store of orders is away; try again in a moment")
        }
        StoreError::Corrupt(cause) => ApiError::internal(cause),
    }
}

/// `input` is the path of the argument that the rules' fields are part of, such as `input.`.
pub(super) fn of_command(refused: Refused, input: &str) -> ApiError {
    match refused {
        Refused::Rule(rule) => of_rule(&rule, input),
        Refused::Contended | Refused::Backlogged | Refused::Filling => {
            ApiError::unavailable(refused.to_string())
        }
        Refused::TooLarge { .. } => {
            // A cancellation adds its reason and nothing else.
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
            ApiError::customer_unknown(customer_id).with_field(format!("{input}customerId"))
        }
        OrderError::RevisionConflict { expected, actual } => {
            ApiError::revision_conflict(expected.unsigned_abs(), actual.unsigned_abs())
        }
        OrderError::InvalidTransition { from, to } => {
            ApiError::invalid_transition(rule.to_string())
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
        } => ApiError::subscription_lagged(cursor),
        LiveError::Lagged { cursor: None } => ApiError::new(
            ErrorCode::SubscriptionLagged,
            "updates came faster than they were taken; subscribe again",
        ),
    }
}
