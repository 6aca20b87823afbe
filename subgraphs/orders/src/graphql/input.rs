//! What clients send with a mutation.

use async_graphql::{ID, InputObject};
use tandem_kit::graphql::Decimal;

use super::customer::AddressTypeValue;
use crate::{
    commands::PlaceOrder,
    domain::{OrderItem, Product},
};

/// What to order, for whom, and where to send it.
#[derive(InputObject)]
pub(super) struct PlaceOrderInput {
    customer_id: ID,
    /// 1 to 100.
    items: Vec<OrderItemInput>,
    /// Which of the customer's addresses.
    #[graphql(default_with = "AddressTypeValue::Shipping")]
    ship_to: AddressTypeValue,
    /// Same key, same caller, within a day: the first answer is given again and nothing is ordered twice.
    idempotency_key: Option<String>,
}

#[derive(InputObject)]
pub(super) struct OrderItemInput {
    product: ProductInput,
    /// 1 to 1,000,000.
    quantity: i32,
}

#[derive(InputObject)]
pub(super) struct ProductInput {
    guid: ID,
    title: String,
    description: Option<String>,
    /// 0 or more, with at most 12 digits before the decimal point and 8 after it.
    price: Decimal,
}

impl From<PlaceOrderInput> for PlaceOrder {
    fn from(input: PlaceOrderInput) -> Self {
        let item = |item: OrderItemInput| OrderItem {
            product: Product {
                guid: item.product.guid.0,
                title: item.product.title,
                description: item.product.description,
                price: item.product.price,
            },
            quantity: item.quantity,
        };
        Self {
            customer_id: input.customer_id.0,
            items: input.items.into_iter().map(item).collect(),
            ship_to: input.ship_to.into(),
            idempotency_key: input.idempotency_key,
        }
    }
}
