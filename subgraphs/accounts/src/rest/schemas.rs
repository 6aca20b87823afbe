//! The JSON Schemas of the texts in the documented body, for its OpenAPI description. They state the rules of the
//! domain.

use utoipa::openapi::{
    Array, ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema,
    schema::{SchemaType, Type},
};

use crate::domain::{MAX_ADDRESSES, MAX_CARDS, MAX_DESCRIPTION, MAX_EMAIL, MAX_PHONE, MAX_TEXT};

/// A text without invisible characters, and with at least one that is not a space. Spaces are listed one by one,
/// because engines differ in the meaning of `\s` and in how they count characters beyond the basic multilingual plane.
/// The rules for joiners are stricter than this pattern: a joiner must have something to join.
const SAYS_SOMETHING: &str = r"^[^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]*[^\u0000-\u0020\u007f-\u00a0\u00ad\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb][^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]*$";
/// A text without invisible characters.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]*$";
const PHONE: &str = r"^[A-Za-z0-9 +./()#*,-]*[0-9][A-Za-z0-9 +./()#*,-]*$";
const PHONE_OR_BLANK: &str = r"^([\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]*|[A-Za-z0-9 +./()#*,-]*[0-9][A-Za-z0-9 +./()#*,-]*)$";
const CARD_NUMBER: &str = r"^[ -]*([0-9][ -]*){12,19}$";
const EXPIRATION: &str = r"^(0?[1-9]|1[0-2])/([0-9]{2}|[0-9]{4})$";

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn string_or_null() -> ObjectBuilder {
    let types = [Type::String, Type::Null].into_iter().collect();
    ObjectBuilder::new().schema_type(SchemaType::Array(types))
}

/// A required text.
pub(super) fn text() -> Schema {
    let text = string().min_length(Some(1)).max_length(Some(MAX_TEXT));
    text.pattern(Some(SAYS_SOMETHING)).into()
}

/// An optional text.
pub(super) fn text_or_null() -> Schema {
    let text = string_or_null().max_length(Some(MAX_TEXT));
    text.pattern(Some(PLAIN)).into()
}

/// An optional description, which may be longer than other texts.
pub(super) fn description() -> Schema {
    let text = string_or_null().max_length(Some(MAX_DESCRIPTION));
    text.pattern(Some(PLAIN)).into()
}

pub(super) fn phone() -> Schema {
    let phone = string().max_length(Some(MAX_PHONE));
    phone.pattern(Some(PHONE)).into()
}

pub(super) fn phone_or_null() -> Schema {
    let phone = string_or_null().max_length(Some(MAX_PHONE));
    phone.pattern(Some(PHONE_OR_BLANK)).into()
}

pub(super) fn email() -> Schema {
    let email = string().max_length(Some(MAX_EMAIL));
    let email = email.description(Some("Any text: its form is not checked here."));
    email.pattern(Some(SAYS_SOMETHING)).into()
}

pub(super) fn card_number() -> Schema {
    let number = string().description(Some(
        "12 to 19 digits, with spaces or dashes between. It is sealed at once and never answered.",
    ));
    number.pattern(Some(CARD_NUMBER)).into()
}

pub(super) fn expiration() -> Schema {
    let expiration = string().description(Some("M/YY, MM/YY or MM/YYYY."));
    expiration.pattern(Some(EXPIRATION)).into()
}

pub(super) fn addresses() -> Schema {
    list("Address", MAX_ADDRESSES).into()
}

pub(super) fn credit_cards() -> Schema {
    list("CreditCard", MAX_CARDS).into()
}

/// An optional list.
fn list(of: &str, most: usize) -> Array {
    let types = [Type::Array, Type::Null].into_iter().collect();
    ArrayBuilder::new()
        .schema_type(SchemaType::Array(types))
        .items(RefOr::<Schema>::Ref(Ref::from_schema_name(of)))
        .max_items(Some(most))
        .build()
}
