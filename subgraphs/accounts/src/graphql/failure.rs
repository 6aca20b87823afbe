//! The errors that GraphQL clients get when a command fails.

use tandem_event_path::{commands::CommandError, store::StoreError};
use tandem_service::graphql::ApiError;

use crate::{
    customers::{Failure, WAITING},
    domain::CustomerError,
};

/// The error of a failed command. `input` is the argument that holds the customer's fields.
pub(super) fn of_command(failure: Failure, input: &str) -> ApiError {
    match failure {
        CommandError::Rejected(refused) => of_rule(refused, input),
        CommandError::Unavailable(error) => of_store(&error),
        CommandError::TooLarge { .. } => ApiError::bad_user_input(input, failure.to_string()),
        CommandError::KeyReused => ApiError::key_reused(failure.to_string()),
        CommandError::Filling => filling(),
        CommandError::Waiting => ApiError::unavailable(WAITING),
        CommandError::Contended => ApiError::unavailable(
            "the customer is being changed by too many at once; ask again in a moment",
        ),
        CommandError::Backlogged => ApiError::unavailable(
            "too many changes of this customer wait to be published; ask again when Kafka is back",
        ),
    }
}

fn of_rule(refused: CustomerError, input: &str) -> ApiError {
    let message = refused.to_string();
    match refused {
        CustomerError::Invalid(violation) => {
            ApiError::bad_user_input(format!("{input}.{}", violation.field), message)
        }
        CustomerError::AlreadyExists(_) | CustomerError::Erased(_) => {
            ApiError::already_exists(message).with_field(format!("{input}.id"))
        }
        CustomerError::ErasedSince(_) => {
            ApiError::already_exists(message).with_field(format!("{input}.idempotencyKey"))
        }
        CustomerError::NotFound(_) => ApiError::not_found(message).with_field("id"),
        CustomerError::RevisionConflict {
            expected, actual, ..
        } => {
            let mut error = ApiError::revision_conflict(
                u64::try_from(expected).unwrap_or_default(),
                u64::try_from(actual).unwrap_or_default(),
            )
            .with_field("expectedRevision");
            error.message = message;
            error
        }
        CustomerError::Vault(_) | CustomerError::NotEncoded(_) => ApiError::internal(message),
    }
}

/// The error for a customer that is missing while the store is filled: the customer may still be in the log.
pub(super) fn filling() -> ApiError {
    ApiError::unavailable("this store is being filled from the log; ask again in a moment")
}

/// The error of a store that failed.
pub(super) fn of_store(error: &StoreError) -> ApiError {
    match error {
        StoreError::Unavailable(reason) => {
            tracing::warn!(reason, "the store is away");
            ApiError::unavailable(match error.public_reason() {
                Some(reason) => format!("the store of accounts fails: {reason}"),
                None => "the store of accounts does not answer; ask again in a moment".to_owned(),
            })
        }
        StoreError::Corrupt(_) => ApiError::internal(error),
    }
}
