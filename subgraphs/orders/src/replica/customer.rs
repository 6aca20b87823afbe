//! A customer as orders knows it: the data that an order needs, and how fresh it is.

use serde::{Deserialize, Serialize};
use tandem_model::values::Timestamp;

use crate::domain::Address;

/// The name of a customer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// A title, such as Mr.
    #[serde(default)]
    pub title: Option<String>,
    /// First name.
    pub first_name: String,
    /// Middle name.
    #[serde(default)]
    pub middle_name: Option<String>,
    /// Last name.
    pub last_name: String,
    /// A suffix, such as Jr.
    #[serde(default)]
    pub suffix: Option<String>,
}

/// Phone numbers and e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// First phone number.
    pub primary_phone: String,
    /// Second phone number.
    #[serde(default)]
    pub secondary_phone: Option<String>,
    /// E-mail address, in any form that accounts has accepted.
    pub email: String,
}

/// A replicated customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaCustomer {
    /// The customer's id. Accounts has assigned or accepted it.
    pub id: String,
    /// The customer's name.
    pub name: Name,
    /// Phone numbers and e-mail address.
    pub contact: Contact,
    /// The postal addresses.
    pub addresses: Vec<Address>,
    /// The revision of the customer in accounts.
    pub revision: i64,
    /// When that revision was made.
    pub changed_at: Timestamp,
    /// When that revision arrived here.
    pub replicated_at: Timestamp,
    /// The wrapped key that seals the personal data in events, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
    /// Whether the customer has been erased. Then this is a stub with empty texts, so that orders can still refer to
    /// the customer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
}
