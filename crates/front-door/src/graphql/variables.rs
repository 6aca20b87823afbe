//! Checks and converts the values of variables, from the text in which they were written.
//!
//! A whole number is accepted for an `ID`, and a `Decimal` keeps every digit: neither passes through a floating-point
//! number (GraphQL, sections ID and Coercing Variable Values).
//!
//! A value of the wrong type is refused here, before anything is executed. Behind the front door each field of a
//! mutation is an operation of its own, so the first one would be done when the variables of the second are found
//! wrong.

use std::borrow::Cow;
use std::fmt;

use apollo_compiler::ast::Type;
use apollo_compiler::schema::{ExtendedType, InputObjectType};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::cost;
use super::error::RequestError;
use super::schema::{GraphSchema, Scalar};

/// A variable of an operation.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) ty: Type,
    /// The JSON text of the value that counts if a request provides none.
    pub(super) default: Option<String>,
    /// The non-null type of a place where the variable occurs, if the variable itself is nullable. A default stands in
    /// for it.
    pub(super) needed: Option<Type>,
}

/// The members of a JSON object, in their order, with unparsed values.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    members.push((key.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

impl<'a> Members<'a> {
    /// The members of an object; none for any other value.
    pub(super) fn of(raw: Option<&'a RawValue>) -> Self {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_else(|| Self(Vec::new()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| *value)
    }
}

impl cost::Values for Members<'_> {
    fn integer(&self, variable: &str) -> Option<i64> {
        let written = self.get(variable)?.get();
        written.parse().ok().or_else(|| {
            // A number beyond the range of integers counts as a very large one.
            written.bytes().next()?.is_ascii_digit().then_some(i64::MAX)
        })
    }

    fn length(&self, variable: &str) -> Option<u64> {
        let elements: Vec<&RawValue> = serde_json::from_str(self.get(variable)?.get()).ok()?;
        Some(elements.len() as u64)
    }
}

/// Writes the variables as the services accept them: converts the values of [`Scalar`]s and adds the defaults of
/// missing variables. Without these, the inner server would evaluate a condition as if its variable had no default.
/// `None` if nothing changes.
///
/// # Errors
/// When a value is missing or has the wrong type; the error has its path as the field. Also when the value is null
/// where only a default could stand in for a missing one.
pub(super) fn coerced(
    schema: &GraphSchema,
    variables: &[Variable],
    given: &Members<'_>,
) -> Result<Option<String>, RequestError> {
    for variable in variables {
        let default = variable.default.as_deref();
        let value = given.get(&variable.name).map(RawValue::get).or(default);
        if value.is_none() && variable.ty.is_non_null() {
            return Err(wrong(&variable.name, "is missing", &of_type(&variable.ty)));
        }
        if value == Some("null")
            && let Some(needed) = &variable.needed
        {
            return Err(wrong(&variable.name, "is null", &of_type(needed)));
        }
    }
    if variables.is_empty() {
        return Ok(None);
    }
    let mut written = String::from("{");
    let mut is_changed = false;
    for (at, (name, value)) in given.0.iter().enumerate() {
        let variable = variables.iter().find(|known| known.name == *name);
        let value = match variable {
            Some(variable) => {
                let mut path = Path(vec![name.to_string()]);
                value_of(schema, &variable.ty, value, &mut path)?
            }
            None => Cow::Borrowed(value.get()),
        };
        is_changed |= matches!(value, Cow::Owned(_));
        member(&mut written, at, name, &value);
    }
    let mut count = given.0.len();
    for variable in variables {
        if let Some(default) = &variable.default
            && given.get(&variable.name).is_none()
        {
            member(&mut written, count, &variable.name, default);
            count += 1;
        }
    }
    written.push('}');
    Ok((is_changed || count > given.0.len()).then_some(written))
}

/// Writes a member of a JSON object. `at` is its index.
pub(super) fn member(written: &mut String, at: usize, name: &str, value: &str) {
    if at > 0 {
        written.push(',');
    }
    written.push_str(&serde_json::Value::from(name).to_string());
    written.push(':');
    written.push_str(value);
}

/// The path to a value, such as `input.items[0].product.price`.
struct Path(Vec<String>);

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            if at > 0 && !segment.starts_with('[') {
                formatter.write_str(".")?;
            }
            formatter.write_str(segment)?;
        }
        Ok(())
    }
}

fn value_of<'a>(
    schema: &GraphSchema,
    ty: &Type,
    raw: &'a RawValue,
    path: &mut Path,
) -> Result<Cow<'a, str>, RequestError> {
    let text = raw.get();
    if text == "null" {
        return if ty.is_non_null() {
            Err(wrong(path, "is null", &of_type(ty)))
        } else {
            Ok(Cow::Borrowed(text))
        };
    }
    if is_services_own(schema, ty) {
        return Ok(Cow::Borrowed(text));
    }
    if ty.is_list() {
        // A single value counts as a list of one.
        return if text.starts_with('[') {
            elements(schema, ty.item_type(), text, path)
        } else {
            value_of(schema, ty.item_type(), raw, path)
        };
    }
    let name = ty.inner_named_type();
    if let Some(scalar) = GraphSchema::scalar(name) {
        return scalar_value(scalar, text, path);
    }
    if name == "Int" && text == "-0" {
        // JSON readers take `-0` for a floating-point number.
        return Ok(Cow::Owned("0".to_owned()));
    }
    let is_right = match schema.valid().types.get(name) {
        Some(ExtendedType::InputObject(input)) if text.starts_with('{') => {
            return object(schema, input, text, path);
        }
        Some(ExtendedType::InputObject(_)) => false,
        Some(ExtendedType::Enum(of)) => serde_json::from_str::<String>(text)
            .is_ok_and(|value| of.values.contains_key(value.as_str())),
        _ => is_built_in(name, text),
    };
    if is_right {
        Ok(Cow::Borrowed(text))
    } else {
        Err(wrong(path, "does not fit", &of_type(ty)))
    }
}

/// Whether the type is, or is a list of, a scalar that only the services know. They check its values.
fn is_services_own(schema: &GraphSchema, ty: &Type) -> bool {
    let name = ty.inner_named_type();
    GraphSchema::scalar(name).is_none()
        && matches!(
            schema.valid().types.get(name),
            Some(ExtendedType::Scalar(_)) | None
        )
        && !BUILT_IN.contains(&name.as_str())
}

/// The scalars of GraphQL itself, without `ID`.
const BUILT_IN: [&str; 4] = ["Int", "Float", "String", "Boolean"];

/// Whether a value fits such a scalar (GraphQL, section Scalars, Input Coercion).
fn is_built_in(name: &str, text: &str) -> bool {
    match name {
        "Int" => text.parse::<i32>().is_ok(),
        "Float" => text.starts_with(|first: char| first == '-' || first.is_ascii_digit()),
        "String" => text.starts_with('"'),
        "Boolean" => matches!(text, "true" | "false"),
        _ => true,
    }
}

fn of_type(ty: &Type) -> String {
    format!("a value of the type {ty}")
}

fn elements<'a>(
    schema: &GraphSchema,
    item: &Type,
    text: &'a str,
    path: &mut Path,
) -> Result<Cow<'a, str>, RequestError> {
    let Ok(elements) = serde_json::from_str::<Vec<&'a RawValue>>(text) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut written = String::from("[");
    let mut is_changed = false;
    for (at, element) in elements.into_iter().enumerate() {
        path.0.push(format!("[{at}]"));
        let value = value_of(schema, item, element, path)?;
        path.0.pop();
        is_changed |= matches!(value, Cow::Owned(_));
        if at > 0 {
            written.push(',');
        }
        written.push_str(&value);
    }
    written.push(']');
    Ok(if is_changed {
        Cow::Owned(written)
    } else {
        Cow::Borrowed(text)
    })
}

fn object<'a>(
    schema: &GraphSchema,
    input: &InputObjectType,
    text: &'a str,
    path: &mut Path,
) -> Result<Cow<'a, str>, RequestError> {
    let Ok(members) = serde_json::from_str::<Members<'a>>(text) else {
        return Ok(Cow::Borrowed(text));
    };
    for (name, field) in &input.fields {
        if field.is_required() && members.get(name).is_none() {
            path.0.push(name.to_string());
            return Err(wrong(path, "is missing", &of_type(&field.ty)));
        }
    }
    let mut written = String::from("{");
    let mut is_changed = false;
    for (at, (name, value)) in members.0.iter().enumerate() {
        path.0.push(name.to_string());
        let Some(field) = input.fields.get::<str>(name) else {
            let expected = format!("fields of the type {} alone", input.name);
            return Err(wrong(path, "is not known", &expected));
        };
        let value = value_of(schema, &field.ty, value, path)?;
        path.0.pop();
        is_changed |= matches!(value, Cow::Owned(_));
        member(&mut written, at, name, &value);
    }
    written.push('}');
    Ok(if is_changed {
        Cow::Owned(written)
    } else {
        Cow::Borrowed(text)
    })
}

fn scalar_value<'a>(
    scalar: Scalar,
    text: &'a str,
    path: &Path,
) -> Result<Cow<'a, str>, RequestError> {
    let is_text = text.starts_with('"');
    match scalar {
        Scalar::Id if is_text => Ok(Cow::Borrowed(text)),
        Scalar::Id if is_whole(text) => Ok(Cow::Owned(format!("\"{text}\""))),
        Scalar::Id => Err(wrong(
            path,
            "is no ID",
            "a text, such as \"42\", or a whole number",
        )),
        Scalar::Decimal if is_text && is_decimal(text.trim_matches('"')) => Ok(Cow::Borrowed(text)),
        Scalar::Decimal if !is_text && is_decimal(text) => Ok(Cow::Owned(format!("\"{text}\""))),
        Scalar::Decimal => Err(no_decimal(&path.to_string())),
    }
}

/// The error for a value at `path` that is not a decimal number.
pub(super) fn no_decimal(path: &str) -> RequestError {
    wrong(
        path,
        "is no decimal number",
        "digits with a point, as a string, such as \"12.50\"",
    )
}

fn wrong(path: impl std::fmt::Display, reason: &str, expected: &str) -> RequestError {
    RequestError::validation(format!("`{path}` {reason}: expected {expected}"), None)
        .with("field", path.to_string())
        .with("reason", reason)
        .with("expected", expected)
}

fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The most digits before the point that every later reader can parse. The domain limits the digits of a price itself.
const MOST_DIGITS: usize = 28;

/// Accepts an optional sign, digits, and an optional fraction. It accepts no exponent, so that the text is unambiguous.
pub(super) fn is_decimal(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.trim_start_matches('-').trim_start_matches('0').len();
    is_whole(whole)
        && digits <= MOST_DIGITS
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
