//! The items of an order: products, quantities and prices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tandem_model::values::Decimal;

use super::{error::OrderError, text};

/// The maximum number of items of one order.
pub const MOST_ITEMS: usize = 100;
/// The maximum number of pieces of one item.
pub const MOST_PIECES: i32 = 1_000_000;
/// The maximum number of digits before the decimal point of a price.
pub const MOST_INTEGER_DIGITS: u32 = 12;
/// The maximum number of digits after the decimal point of a price.
pub const MOST_DECIMALS: u32 = 8;
/// The maximum number of characters of a product's guid.
pub const LONGEST_GUID: usize = 128;
/// The maximum number of characters of a product's title.
pub const LONGEST_TITLE: usize = 500;
/// The maximum number of characters of a product's description.
pub const LONGEST_DESCRIPTION: usize = 4_000;

/// A product as it was when it was ordered: later changes of a catalogue do not reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// The catalogue's id of it.
    pub guid: String,
    /// What it is called.
    pub title: String,
    /// What it is.
    #[serde(default)]
    pub description: Option<String>,
    /// What one piece costs: an exact decimal number.
    #[serde(with = "tandem_model::values::decimal")]
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub price: Decimal,
}

/// A number of pieces of one product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    /// Which product.
    pub product: Product,
    /// How many pieces: 1 to [`MOST_PIECES`].
    pub quantity: i32,
}

/// Checks the items of an order.
///
/// # Errors
/// [`OrderError::Invalid`] with the first value that breaks a rule.
pub fn check(items: &[OrderItem]) -> Result<(), OrderError> {
    if items.is_empty() || items.len() > MOST_ITEMS {
        return Err(OrderError::invalid(
            "items",
            format!("has {} items; expected 1 to {MOST_ITEMS}", items.len()),
        ));
    }
    for (index, item) in items.iter().enumerate() {
        let field = |name: &str| format!("items[{index}].{name}");
        let product = &item.product;
        text::required(&field("product.guid"), &product.guid, LONGEST_GUID)?;
        text::required(&field("product.title"), &product.title, LONGEST_TITLE)?;
        if let Some(description) = &product.description {
            text::bounded(
                &field("product.description"),
                description,
                LONGEST_DESCRIPTION,
            )?;
        }
        check_price(&field("product.price"), product.price)?;
        if !(1..=MOST_PIECES).contains(&item.quantity) {
            return Err(OrderError::invalid(
                field("quantity"),
                format!("is {}; expected 1 to {MOST_PIECES}", item.quantity),
            ));
        }
    }
    Ok(())
}

/// Checks the digits of a price. With twelve digits before the decimal point and eight after it, the exact total of the
/// largest order (100 items of 1,000,000 pieces, which is eight more digits) fits into the 28 digits of a decimal, and
/// into the 34 of Decimal128.
fn check_price(field: &str, price: Decimal) -> Result<(), OrderError> {
    let right = format!(
        "expected 0 or more, with at most {MOST_INTEGER_DIGITS} digits before the decimal point and {MOST_DECIMALS} after it"
    );
    let amount = price.normalize();
    if amount.is_sign_negative() && !amount.is_zero() {
        return Err(OrderError::invalid(field, format!("is {price}; {right}")));
    }
    let too_large = amount >= Decimal::from(10_i64.pow(MOST_INTEGER_DIGITS));
    if too_large || price.scale() > MOST_DECIMALS {
        return Err(OrderError::invalid(field, format!("is {price}; {right}")));
    }
    Ok(())
}

/// The exact sum of price times quantity.
///
/// # Errors
/// [`OrderError::Invalid`] when the sum has more digits than a decimal can hold. Items that passed [`check`] never
/// cause this.
pub fn total(items: &[OrderItem]) -> Result<Decimal, OrderError> {
    items
        .iter()
        .try_fold(Decimal::ZERO, |sum, item| {
            item.product
                .price
                .checked_mul(Decimal::from(item.quantity))
                .and_then(|cost| sum.checked_add(cost))
        })
        .ok_or_else(|| OrderError::invalid("items", "cost more than can be counted exactly"))
}
