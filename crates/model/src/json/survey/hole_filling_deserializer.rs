//! A deserializer over a JSON document. It notes where reading failed and which members are unknown, and it fills holes
//! with placeholder values that fit.

use std::{cell::RefCell, collections::HashSet};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value};

use super::unknown_member::unknown;
use crate::json::Misfit;

/// Most misfits that are reported of one document. The document is read once more for each.
pub(super) const MOST: usize = 20;

/// What one pass found.
#[derive(Default)]
pub(super) struct Seen {
    /// The path of the place where the pass failed.
    pub(super) failed: Option<String>,
    pub(super) unknown: Vec<Misfit>,
}

/// A part of the document. `given` is `None` for a hole, which is read as a placeholder that fits.
pub(super) struct Part<'a> {
    pub(super) given: Option<&'a Value>,
    pub(super) path: String,
    pub(super) holes: &'a HashSet<String>,
    pub(super) seen: &'a RefCell<Seen>,
}

impl<'a> Part<'a> {
    fn within(&self, given: Option<&'a Value>, path: String) -> Self {
        Self {
            given: given.filter(|_| !self.holes.contains(&path)),
            path,
            holes: self.holes,
            seen: self.seen,
        }
    }

    fn member_path(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Notes the path of a failure. The innermost place notes it first and wins.
    fn noting<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        if read.is_err() {
            let mut seen = self.seen.borrow_mut();
            seen.failed.get_or_insert_with(|| self.path.clone());
        }
        read
    }

    fn items(&self, items: &'a [Value]) -> Items<'a> {
        let item = |(index, item)| self.within(Some(item), format!("{}[{index}]", self.path));
        Items(
            items
                .iter()
                .enumerate()
                .map(item)
                .collect::<Vec<_>>()
                .into_iter(),
        )
    }

    fn members(&self, members: &'a Map<String, Value>) -> Members<'a> {
        let member = |(name, value): (&'a String, _)| {
            (
                name.as_str(),
                self.within(Some(value), self.member_path(name)),
            )
        };
        Members::of(members.iter().map(member).collect())
    }

    /// The members of a struct: the known ones that are given, and placeholders for the holes. Notes the members that
    /// are unknown.
    fn fields(
        &self,
        given: Option<&'a Map<String, Value>>,
        fields: &[&'static str],
    ) -> Members<'a> {
        let mut members = Vec::new();
        for (name, value) in given.into_iter().flatten() {
            if fields.contains(&name.as_str()) {
                members.push((
                    name.as_str(),
                    self.within(Some(value), self.member_path(name)),
                ));
            } else {
                let mut seen = self.seen.borrow_mut();
                if seen.unknown.len() < MOST {
                    let field = self.member_path(name);
                    seen.unknown.push(unknown(field, name, fields, given));
                }
            }
        }
        for field in fields {
            let is_given = given.is_some_and(|given| given.contains_key(*field));
            let path = self.member_path(field);
            if !is_given && (self.given.is_none() || self.holes.contains(&path)) {
                members.push((*field, self.within(None, path)));
            }
        }
        Members::of(members)
    }
}

/// Reads the given value, or a placeholder of the type that serde asks for.
macro_rules! thought {
    ($($method:ident => $visit:ident($value:expr)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let read = match self.given {
                Some(given) => given.$method(visitor),
                None => visitor.$visit($value),
            };
            self.noting(read)
        })*
    };
}

impl<'de> Deserializer<'de> for Part<'de> {
    type Error = Error;

    thought! {
        deserialize_bool => visit_bool(false),
        deserialize_i8 => visit_i64(0),
        deserialize_i16 => visit_i64(0),
        deserialize_i32 => visit_i64(0),
        deserialize_i64 => visit_i64(0),
        deserialize_u8 => visit_u64(0),
        deserialize_u16 => visit_u64(0),
        deserialize_u32 => visit_u64(0),
        deserialize_u64 => visit_u64(0),
        deserialize_f32 => visit_f64(0.0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_char => visit_char(' '),
        deserialize_str => visit_str(""),
        deserialize_string => visit_str(""),
        deserialize_bytes => visit_bytes(&[]),
        deserialize_byte_buf => visit_bytes(&[]),
        deserialize_identifier => visit_str(""),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match self.given {
            Some(Value::Array(items)) => visitor.visit_seq(self.items(items)),
            Some(Value::Object(members)) => visitor.visit_map(self.members(members)),
            Some(plain) => plain.deserialize_any(visitor),
            None => visitor.visit_str(""),
        };
        self.noting(read)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.given {
            Some(Value::Null) | None => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match self.given {
            Some(Value::Array(items)) => visitor.visit_seq(self.items(items)),
            Some(other) => other.deserialize_seq(visitor),
            None => visitor.visit_seq(self.items(&[])),
        };
        self.noting(read)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match self.given {
            Some(Value::Object(members)) => visitor.visit_map(self.members(members)),
            Some(other) => other.deserialize_map(visitor),
            None => visitor.visit_map(Members::of(Vec::new())),
        };
        self.noting(read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let read = match self.given {
            Some(Value::Object(members)) => visitor.visit_map(self.fields(Some(members), fields)),
            // The array is visited first: its wrong length or an item that does not fit is the better message.
            Some(Value::Array(items)) => visitor
                .visit_seq(self.items(items))
                .and_then(|_| Err(Error::invalid_type(Unexpected::Seq, &"an object"))),
            Some(other) => other.deserialize_struct(name, fields, visitor),
            None => visitor.visit_map(self.fields(None, fields)),
        };
        self.noting(read)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let read = match (self.given, variants.first()) {
            (Some(Value::Object(_)), _) => Err(Error::invalid_type(Unexpected::Map, &"a string")),
            (Some(given), _) => given.deserialize_enum(name, variants, visitor),
            (None, Some(first)) => visitor.visit_enum(First(first)),
            (None, None) => Err(Error::custom("no value")),
        };
        self.noting(read)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 unit unit_struct tuple tuple_struct }
}

struct Items<'a>(std::vec::IntoIter<Part<'a>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Members<'a> {
    members: std::vec::IntoIter<(&'a str, Part<'a>)>,
    value: Option<Part<'a>>,
}

impl<'a> Members<'a> {
    fn of(members: Vec<(&'a str, Part<'a>)>) -> Self {
        Self {
            members: members.into_iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let value = self.value.take();
        seed.deserialize(value.ok_or_else(|| Error::custom("a value without a name"))?)
    }
}

/// The first variant of an enum, without data. It is the placeholder for an enum.
struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for First {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Error> {
        Err(Error::custom("no value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no value"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom("no value"))
    }
}
