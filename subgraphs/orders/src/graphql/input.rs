//! The inputs of the mutations.

use async_graphql::{ID, InputObject, InputType};
use serde_json::json;
use tandem_model::request_key::Request;
use tandem_service::graphql::{ApiError, Decimal, request_key};

use super::customer::AddressTypeValue;
use crate::{
    commands::PlaceOrder,
    domain::{OrderItem, Product},
};

/// What to order, for whom, and where to send it.
#[derive(InputObject)]
pub(super) struct PlaceOrderInput {
    pub(super) customer_id: ID,
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

impl PlaceOrderInput {
    /// The request, made by this caller.
    ///
    /// # Errors
    /// When the idempotency key is not valid.
    pub(super) fn asked_by(mut self, caller: &str) -> Result<PlaceOrder, ApiError> {
        let key = self
            .idempotency_key
            .take()
            .map(|given| -> Result<_, ApiError> {
                let request = Request {
                    caller,
                    operation: "placeOrder",
                    target: "",
                    input: &json!({ "input": self.to_value() }),
                };
                let key = request_key(request, &given)?;
                // The name of the key in earlier versions.
                Ok(key.also_known_as(format!("placeOrder/{caller}/{given}")))
            });
        Ok(PlaceOrder {
            idempotency_key: key.transpose()?,
            ..self.into()
        })
    }
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
            idempotency_key: None,
        }
    }
}
