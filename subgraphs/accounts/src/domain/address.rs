//! The postal addresses of a customer, for bills and parcels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::violation::{Path, Violation, at_most};

/// The maximum number of addresses of one customer.
pub const MAX_ADDRESSES: usize = 100;

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AddressType {
    /// Bills go there.
    Billing,
    /// Parcels go there.
    Shipping,
    /// Parcels go there if asked to.
    ShippingAlternate,
}

/// A postal address. Texts are kept as they were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: AddressType,
    /// What the customer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Street and number.
    pub address1: String,
    /// What does not fit the first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address2: Option<String>,
    /// Required.
    pub city: String,
    /// State, province or region.
    pub state: String,
    /// Required.
    pub postal_code: String,
}

impl Address {
    pub(crate) fn check_all(addresses: &[Self]) -> Result<(), Violation> {
        at_most("addresses", addresses.len(), MAX_ADDRESSES)?;
        addresses
            .iter()
            .enumerate()
            .try_for_each(|(index, address)| {
                let path = Path::entry("addresses", index);
                path.description(address.description.as_ref())?;
                path.required("address1", &address.address1)?;
                path.optional("address2", address.address2.as_ref())?;
                path.required("city", &address.city)?;
                path.required("state", &address.state)?;
                path.required("postalCode", &address.postal_code)
            })
    }
}
