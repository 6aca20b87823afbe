//! Where accounts keeps what it keeps: customers, their audit trail, and messages set aside.

use tandem_assembly::stores::{self, StoreNames};

use crate::domain::Customer;

/// What the stores of accounts are called.
pub const NAMES: StoreNames = StoreNames {
    database: "accounts",
    changes: "customer.changes",
};

/// The stores of accounts.
pub type Stores = stores::Stores<Customer>;
