//! Postal addresses in orders, and the choice of the address that an order is shipped to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::OrderError;

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AddressType {
    /// Where bills go.
    Billing,
    /// Where orders go.
    Shipping,
    /// Where orders may go instead.
    ShippingAlternate,
}

impl std::fmt::Display for AddressType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Billing => "BILLING",
            Self::Shipping => "SHIPPING",
            Self::ShippingAlternate => "SHIPPING_ALTERNATE",
        })
    }
}

/// A postal address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: AddressType,
    /// What its owner calls it.
    #[serde(default)]
    pub description: Option<String>,
    /// Street and number.
    pub address1: String,
    /// What does not fit there.
    #[serde(default)]
    pub address2: Option<String>,
    /// City.
    pub city: String,
    /// State or province.
    pub state: String,
    /// Postal code.
    pub postal_code: String,
}

/// The address of the wanted type. It is copied into the order, so that later changes of the customer do not change the
/// order. `None` only for a customer without any address. If several addresses have that type, the first one is used.
///
/// # Errors
/// [`OrderError::Invalid`] on `shipTo` when the customer has addresses, but none of that type.
pub fn ship_to(addresses: &[Address], wanted: AddressType) -> Result<Option<Address>, OrderError> {
    if let Some(found) = addresses.iter().find(|address| address.kind == wanted) {
        return Ok(Some(found.clone()));
    }
    if addresses.is_empty() {
        return Ok(None);
    }
    let mut has: Vec<String> = addresses
        .iter()
        .map(|address| address.kind.to_string())
        .collect();
    has.dedup();
    Err(OrderError::invalid(
        "shipTo",
        format!(
            "the customer has no {wanted} address; expected one of {}",
            has.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(kind: AddressType) -> Address {
        Address {
            kind,
            description: None,
            address1: "123 Main Street".into(),
            address2: None,
            city: "New York".into(),
            state: "NY".into(),
            postal_code: "10110".into(),
        }
    }

    #[test]
    fn the_address_of_the_wanted_type_is_taken() {
        let addresses = [
            address(AddressType::Billing),
            address(AddressType::Shipping),
        ];
        assert_eq!(
            ship_to(&addresses, AddressType::Shipping).unwrap(),
            Some(addresses[1].clone())
        );
    }

    #[test]
    fn a_missing_type_is_refused_with_the_types_that_are_there() {
        let addresses = [address(AddressType::Billing)];
        let error = ship_to(&addresses, AddressType::Shipping).unwrap_err();
        assert_eq!(
            error.to_string(),
            "shipTo: the customer has no SHIPPING address; expected one of BILLING"
        );
    }

    #[test]
    fn a_customer_without_addresses_may_order_without_one() {
        assert_eq!(ship_to(&[], AddressType::Shipping).unwrap(), None);
    }
}
