//! The JSON document of a customer with orders. serde writes its texts. Prices are written digit by digit, so that they
//! are JSON numbers without binary rounding.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{Order, OrderItem},
    replica::ReplicaCustomer,
};

/// Appends a value as JSON.
fn write(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
    serde_json::to_writer(text, value)
}

/// Writes the beginning of a customer's document, up to its orders.
pub(super) fn begin(text: &mut Vec<u8>, customer: &ReplicaCustomer) -> serde_json::Result<()> {
    text.extend_from_slice(b"{\"id\":");
    write(text, &customer.id)?;
    text.extend_from_slice(b",\"name\":");
    write(text, &customer.name)?;
    text.extend_from_slice(b",\"contact\":");
    write(text, &customer.contact)?;
    text.extend_from_slice(b",\"addresses\":");
    write(text, &customer.addresses)?;
    text.extend_from_slice(b",\"orders\":[");
    Ok(())
}

/// Writes one order.
pub(super) fn order(text: &mut Vec<u8>, order: &Order) -> serde_json::Result<()> {
    text.extend_from_slice(b"{\"guid\":");
    write(text, &order.id)?;
    text.extend_from_slice(b",\"orderItems\":[");
    for (index, one) in order.items.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        item(text, one)?;
    }
    text.extend_from_slice(b"]}");
    Ok(())
}

fn item(text: &mut Vec<u8>, item: &OrderItem) -> serde_json::Result<()> {
    let product = &item.product;
    text.extend_from_slice(b"{\"product\":{\"guid\":");
    write(text, &product.guid)?;
    text.extend_from_slice(b",\"title\":");
    write(text, &product.title)?;
    text.extend_from_slice(b",\"description\":");
    write(text, &product.description)?;
    text.extend_from_slice(b",\"price\":");
    // The text has digits and at most one decimal point, which is also how JSON writes a number.
    text.extend_from_slice(product.price.to_string().as_bytes());
    text.extend_from_slice(b"},\"quantity\":");
    write(text, &item.quantity)?;
    text.push(b'}');
    Ok(())
}

/// Writes the end of a customer's document.
pub(super) fn end(text: &mut Vec<u8>) {
    text.extend_from_slice(b"]}");
}

/// A customer with orders, as the API's description shows it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code)] // it describes what the functions above write
pub(super) struct CustomerDocument {
    #[schema(example = "123456")]
    id: String,
    name: NameDocument,
    contact: ContactDocument,
    addresses: Vec<AddressDocument>,
    orders: Vec<OrderDocument>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code)]
struct NameDocument {
    title: Option<String>,
    first_name: String,
    middle_name: Option<String>,
    last_name: String,
    suffix: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code)]
struct ContactDocument {
    primary_phone: String,
    secondary_phone: Option<String>,
    email: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code)]
struct AddressDocument {
    /// BILLING, SHIPPING or SHIPPING_ALTERNATE.
    r#type: String,
    description: Option<String>,
    address1: String,
    address2: Option<String>,
    city: String,
    state: String,
    postal_code: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code)]
struct OrderDocument {
    guid: String,
    order_items: Vec<ItemDocument>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
struct ItemDocument {
    product: ProductDocument,
    quantity: i32,
}

#[derive(ToSchema)]
#[allow(dead_code)]
struct ProductDocument {
    guid: String,
    title: String,
    description: Option<String>,
    /// Exact: read it as a decimal number.
    #[schema(value_type = f64, example = 12.5)]
    price: String,
}
