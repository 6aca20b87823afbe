//! The body of the documented create route.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};
use utoipa::{PartialSchema, ToSchema, openapi};

use super::schemas;
use crate::domain::{
    Address, AddressType, CardDraft, Contact, CreateCustomer, CreditCardType, CustomerId, Name,
    Violation,
};

/// A customer with all its parts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Customer)]
pub(super) struct CustomerBody {
    id: GivenId,
    name: NameBody,
    contact: ContactBody,
    #[schema(schema_with = schemas::addresses)]
    #[serde(default)]
    addresses: Option<Vec<AddressBody>>,
    #[schema(schema_with = schemas::credit_cards)]
    #[serde(default)]
    credit_cards: Option<Vec<CreditCardBody>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(
    rename_all = "camelCase",
    expecting = "an object with firstName and lastName"
)]
#[schema(as = Name)]
pub(super) struct NameBody {
    #[schema(schema_with = schemas::text_or_null)]
    #[serde(default)]
    title: Option<String>,
    #[schema(schema_with = schemas::text)]
    first_name: String,
    #[schema(schema_with = schemas::text_or_null)]
    #[serde(default)]
    middle_name: Option<String>,
    #[schema(schema_with = schemas::text)]
    last_name: String,
    #[schema(schema_with = schemas::text_or_null)]
    #[serde(default)]
    suffix: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(
    rename_all = "camelCase",
    expecting = "an object with primaryPhone and email"
)]
#[schema(as = Contact)]
pub(super) struct ContactBody {
    #[schema(schema_with = schemas::phone)]
    primary_phone: String,
    #[schema(schema_with = schemas::phone_or_null)]
    #[serde(default)]
    secondary_phone: Option<String>,
    #[schema(schema_with = schemas::email)]
    email: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(
    rename_all = "camelCase",
    expecting = "an object with type, address1, city, state and postalCode"
)]
#[schema(as = Address)]
pub(super) struct AddressBody {
    #[serde(rename = "type")]
    #[schema(inline)]
    kind: AddressKind,
    #[schema(schema_with = schemas::description)]
    #[serde(default)]
    description: Option<String>,
    #[schema(schema_with = schemas::text)]
    address1: String,
    #[schema(schema_with = schemas::text_or_null)]
    #[serde(default)]
    address2: Option<String>,
    #[schema(schema_with = schemas::text)]
    city: String,
    #[schema(schema_with = schemas::text)]
    state: String,
    #[schema(schema_with = schemas::text)]
    postal_code: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum AddressKind {
    Billing,
    Shipping,
    ShippingAlternate,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(
    rename_all = "camelCase",
    expecting = "an object with type, number, expiration and nameOnCard"
)]
#[schema(as = CreditCard)]
pub(super) struct CreditCardBody {
    #[serde(rename = "type")]
    #[schema(inline)]
    kind: CardKind,
    #[schema(schema_with = schemas::description)]
    #[serde(default)]
    description: Option<String>,
    #[schema(schema_with = schemas::card_number)]
    number: String,
    #[schema(schema_with = schemas::expiration)]
    expiration: String,
    #[schema(schema_with = schemas::text)]
    name_on_card: String,
}

impl fmt::Debug for CreditCardBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CreditCardBody")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum CardKind {
    Primary,
    Alternate,
}

/// 2^53. Every JSON reader can hold whole numbers below this bound exactly.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// An id that is given as a JSON number or string. It is written as a string.
#[derive(Debug, Clone)]
pub(super) struct GivenId(String);

impl Serialize for GivenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GivenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = GivenId;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(
                    "a whole number that is not negative, or a string of 1 to 64 of A-Z a-z 0-9 _ -",
                )
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<GivenId, E> {
                Ok(GivenId(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<GivenId, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }

            /// JSON does not distinguish 1.0 from 1. Above 2^53 a number of this form is not exact.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<GivenId, E> {
                let exact = (0.0..EXACT_BELOW).contains(&number) && number.fract() == 0.0;
                if !exact {
                    return Err(E::invalid_value(de::Unexpected::Float(number), &self));
                }
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                // The number is whole and in range.
                self.visit_u64(number as u64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GivenId, E> {
                Ok(GivenId(text.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

impl PartialSchema for GivenId {
    fn schema() -> openapi::RefOr<openapi::Schema> {
        let number = openapi::ObjectBuilder::new()
            .schema_type(openapi::schema::Type::Integer)
            .minimum(Some(0))
            .maximum(Some(u64::MAX));
        let text = openapi::ObjectBuilder::new()
            .schema_type(openapi::schema::Type::String)
            .pattern(Some("^[A-Za-z0-9_-]{1,64}$"));
        openapi::schema::OneOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some("A number or a text; answered as a text."))
            .into()
    }
}

impl ToSchema for GivenId {}

impl TryFrom<CustomerBody> for CreateCustomer {
    type Error = Violation;

    fn try_from(body: CustomerBody) -> Result<Self, Violation> {
        Ok(Self {
            id: CustomerId::parse(body.id.0)?,
            name: Name {
                title: body.name.title,
                first_name: body.name.first_name,
                middle_name: body.name.middle_name,
                last_name: body.name.last_name,
                suffix: body.name.suffix,
            },
            contact: Contact {
                primary_phone: body.contact.primary_phone,
                secondary_phone: body.contact.secondary_phone,
                email: body.contact.email,
            },
            addresses: body
                .addresses
                .unwrap_or_default()
                .into_iter()
                .map(Into::into)
                .collect(),
            credit_cards: body
                .credit_cards
                .unwrap_or_default()
                .into_iter()
                .map(Into::into)
                .collect(),
        })
    }
}

impl From<AddressBody> for Address {
    fn from(body: AddressBody) -> Self {
        Self {
            kind: match body.kind {
                AddressKind::Billing => AddressType::Billing,
                AddressKind::Shipping => AddressType::Shipping,
                AddressKind::ShippingAlternate => AddressType::ShippingAlternate,
            },
            description: body.description,
            address1: body.address1,
            address2: body.address2,
            city: body.city,
            state: body.state,
            postal_code: body.postal_code,
        }
    }
}

impl From<CreditCardBody> for CardDraft {
    fn from(body: CreditCardBody) -> Self {
        Self {
            kind: match body.kind {
                CardKind::Primary => CreditCardType::Primary,
                CardKind::Alternate => CreditCardType::Alternate,
            },
            description: body.description,
            number: body.number,
            expiration: body.expiration,
            name_on_card: body.name_on_card,
        }
    }
}
