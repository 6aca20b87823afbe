//! Why a command is refused.

use crate::domain::{CustomerId, VaultError, Violation};

/// Why a command is refused. The state is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomerError {
    /// A field does not keep its rule.
    #[error(transparent)]
    Invalid(#[from] Violation),
    /// The id is in use.
    #[error("customer {0} exists already: choose another id, or update that customer")]
    AlreadyExists(CustomerId),
    /// The id was a customer's who has been erased.
    #[error("customer {0} was erased, and the id is not used again: choose another id")]
    Erased(CustomerId),
    /// The request was carried out before, and what it made has been erased.
    #[error(
        "this request was carried out before for customer {0}, who was erased since; it is not carried out again"
    )]
    ErasedSince(CustomerId),
    /// There is no such customer.
    #[error("there is no customer {0}")]
    NotFound(CustomerId),
    /// Somebody else was first.
    #[error(
        "customer {id} is at revision {actual}, not {expected}: read it again and repeat the change"
    )]
    RevisionConflict {
        /// Whose.
        id: CustomerId,
        /// The revision that the caller expects.
        expected: i64,
        /// The revision there is.
        actual: i64,
    },
    /// A card number cannot be sealed: the service's fault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The event cannot be written: the service's fault.
    #[error("the change event cannot be written: {0}")]
    NotEncoded(String),
}
