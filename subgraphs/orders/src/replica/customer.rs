//! A customer as orders knows it: what an order needs, and how fresh that is.

use serde::{Deserialize, Serialize};
use tandem_model::values::Timestamp;

use crate::domain::Address;

/// What a customer is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// Such as Mr.
    #[serde(default)]
    pub title: Option<String>,
    /// First name.
    pub first_name: String,
    /// Middle name.
    #[serde(default)]
    pub middle_name: Option<String>,
    /// Last name.
    pub last_name: String,
    /// Such as Jr.
    #[serde(default)]
    pub suffix: Option<String>,
}

/// How a customer is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contact {
    /// First phone number.
    pub primary_phone: String,
    /// Second phone number.
    #[serde(default)]
    pub secondary_phone: Option<String>,
    /// E-mail address, in whatever form accounts took it.
    pub email: String,
}

/// A replicated customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaCustomer {
    /// The customer's id, as accounts gave it.
    pub id: String,
    /// What the customer is called.
    pub name: Name,
    /// How the customer is reached.
    pub contact: Contact,
    /// Where things can be sent.
    pub addresses: Vec<Address>,
    /// Accounts' revision of the customer.
    pub revision: i64,
    /// When that revision was made.
    pub changed_at: Timestamp,
    /// When it arrived here.
    pub replicated_at: Timestamp,
    /// The key that what is personal is sealed with in events, wrapped, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
    /// The customer has been erased: this is a stub with empty texts, so that orders still have somebody to name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
}
