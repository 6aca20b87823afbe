//! The stores of accounts: customers, their audit trail, and dead letters.

use tandem_assembly::stores::{self, StoreNames};

use crate::domain::Customer;

/// The names of the stores of accounts.
pub const NAMES: StoreNames = StoreNames {
    database: "accounts",
    changes: "customer.changes",
};

/// The stores of accounts.
pub type Stores = stores::Stores<Customer>;
