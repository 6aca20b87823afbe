//! The reasons for which a command is refused.

use crate::domain::{CustomerId, VaultError, Violation};

/// Why a command is refused. A refused command leaves the state unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomerError {
    /// A field breaks its rule.
    #[error(transparent)]
    Invalid(#[from] Violation),
    /// The id is in use.
    #[error("customer {0} exists already: choose another id, or update that customer")]
    AlreadyExists(CustomerId),
    /// The id belonged to a customer who has been erased.
    #[error("customer {0} was erased, and the id is not used again: choose another id")]
    Erased(CustomerId),
    /// The request was carried out before, and the customer that it changed has been erased since.
    #[error(
        "this request was carried out before for customer {0}, who was erased since; it is not carried out again"
    )]
    ErasedSince(CustomerId),
    /// There is no such customer.
    #[error("there is no customer {0}")]
    NotFound(CustomerId),
    /// Another writer was faster.
    #[error(
        "customer {id} is at revision {actual}, not {expected}: read it again and repeat the change"
    )]
    RevisionConflict {
        /// The customer.
        id: CustomerId,
        /// The revision that the caller expects.
        expected: i64,
        /// The revision that the customer has.
        actual: i64,
    },
    /// A card number cannot be sealed. This is a fault of the service.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The event cannot be written. This is a fault of the service.
    #[error("the change event cannot be written: {0}")]
    NotEncoded(String),
}
