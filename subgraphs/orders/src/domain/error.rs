//! The reasons for which a command on an order is refused. The texts are written for the caller and contain nothing
//! internal.

use super::status::OrderStatus;

/// Why a command on an order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A value of the command breaks a rule.
    #[error("{field}: {problem}")]
    Invalid {
        /// The path of the value within the command, such as `items[0].quantity`.
        field: String,
        /// Why it is refused and what would be right.
        problem: String,
    },
    /// There is no such order.
    #[error("there is no order {id}")]
    NotFound {
        /// The requested id.
        id: String,
    },
    /// The customer is not known to orders.
    #[error("customer {customer_id} is not known to orders; create the customer first")]
    CustomerUnknown {
        /// The requested id.
        customer_id: String,
    },
    /// The caller expects another revision than the stored one.
    #[error(
        "the order is at revision {actual}, not at the expected revision {expected}; read it again"
    )]
    RevisionConflict {
        /// The revision that the caller expects.
        expected: i64,
        /// The stored revision.
        actual: i64,
    },
    /// The state machine has no such step.
    #[error("an order that is {from} cannot become {to}; {}", possible(*from))]
    InvalidTransition {
        /// The present state.
        from: OrderStatus,
        /// The requested state.
        to: OrderStatus,
    },
}

impl OrderError {
    /// A value that breaks a rule.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

fn possible(from: OrderStatus) -> String {
    match (from.next(), from.can_be_cancelled()) {
        (Some(next), true) => format!("it can become {next} or CANCELLED"),
        (Some(next), false) => format!("it can become {next}"),
        (None, _) => "that is its last state".to_owned(),
    }
}
