//! Everything about a document that does not fit, where serde stops at the first.
//!
//! The document is read again and again: what did not fit the last time is taken for anything that would, so the next misfit shows.
//! Members that are not known are told too, each with the known name that is most like it, though alone they are no reason to refuse.

use std::{cell::RefCell, collections::HashSet};

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess,
        SeqAccess, Unexpected, VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value};

use super::{Misfit, explain};

/// Misfits that are told at most of one document: for each it is read once more.
const MOST: usize = 20;
/// Bytes of the longest document that is read so: of a longer one serde's first misfit has to do.
const LONGEST: usize = 65_536;
/// How like a name must be to one that is known: 1 for the same.
const ALIKE: f64 = 0.75;

/// Whatever does not fit of a document that is not `T`: first the members that are not known, then what is missing or wrong; no more than
/// twenty. Empty if the document is no object, is longer than 64 KiB, or is well.
#[must_use]
pub fn misfits<T: DeserializeOwned>(json: &[u8]) -> Vec<Misfit> {
    if json.len() > LONGEST {
        return Vec::new();
    }
    let Ok(document @ Value::Object(_)) = serde_json::from_slice::<Value>(json) else {
        return Vec::new();
    };
    let mut holes = HashSet::new();
    let mut misfits: Vec<Misfit> = Vec::new();
    loop {
        let seen = RefCell::default();
        let whole = Part {
            given: Some(&document),
            path: String::new(),
            holes: &holes,
            seen: &seen,
        };
        let read = T::deserialize(whole);
        let Seen { failed, unknown } = seen.into_inner();
        let error = read.err();
        let misfit = error.map(|error| explain(&failed.unwrap_or_default(), &error.to_string()));
        if let Some(misfit) = misfit
            && misfits.len() < MOST
            && holes.insert(misfit.field.clone())
        {
            misfits.push(misfit);
            continue;
        }
        let mut all = unknown;
        misfits.truncate(MOST - all.len());
        all.extend(misfits);
        return all;
    }
}

/// The first misfit of a document that serde reads all the same, for it takes an array for an object, member by member, and an object for
/// the name of a variant.
#[must_use]
pub fn lenient_misfit<T: DeserializeOwned>(json: &[u8]) -> Option<Misfit> {
    let document = serde_json::from_slice::<Value>(json).ok()?;
    let (holes, seen) = (HashSet::new(), RefCell::default());
    let whole = Part {
        given: Some(&document),
        path: String::new(),
        holes: &holes,
        seen: &seen,
    };
    let error = T::deserialize(whole).err()?;
    let failed = seen.into_inner().failed.unwrap_or_default();
    Some(explain(&failed, &error.to_string()))
}

/// What one reading found.
#[derive(Default)]
struct Seen {
    /// Where it failed.
    failed: Option<String>,
    unknown: Vec<Misfit>,
}

/// A part of the document; nothing, where one is to be thought that fits.
struct Part<'a> {
    given: Option<&'a Value>,
    path: String,
    holes: &'a HashSet<String>,
    seen: &'a RefCell<Seen>,
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

    /// Notes where reading failed, if it did: the innermost place counts.
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

    /// The members that a struct knows: those that are given, and those that are to be thought.
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

/// A member that is not known: the known name that is most like it is told if it is not given, too, and else all that are known.
fn unknown(
    field: String,
    name: &str,
    fields: &[&str],
    given: Option<&Map<String, Value>>,
) -> Misfit {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(name);
    let is_free = |field: &&&str| given.is_none_or(|given| !given.contains_key(**field));
    let alike = fields
        .iter()
        .filter(is_free)
        .map(|field| (strsim::jaro_winkler(&wanted, &plain(field)), *field))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    Misfit {
        field,
        reason: match alike {
            Some((_, alike)) => format!("unknown field; did you mean `{alike}`?"),
            None => "unknown field".to_owned(),
        },
        expected: Some(format!("one of {}", fields.join(", "))),
    }
}

/// What would fit, as serde asks for it.
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
            // An array that is too short is told by its length, and one whose items do not fit by those.
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

/// The first variant of an enum, which holds nothing.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, dead_code)]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        id: u64,
        name: Name,
        kind: Option<Kind>,
        #[serde(default)]
        places: Vec<Place>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Name {
        first_name: String,
        last_name: String,
    }

    #[derive(Debug, Deserialize)]
    struct Place {
        kind: Kind,
        city: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Kind {
        One,
        Other,
    }

    fn told(json: &str) -> Vec<String> {
        let misfits = misfits::<Document>(json.as_bytes());
        let told = |misfit: Misfit| format!("{}: {}", misfit.field, misfit.reason);
        misfits.into_iter().map(told).collect()
    }

    #[test]
    fn what_is_not_known_is_told_with_what_is_missing_at_every_depth() {
        assert_eq!(
            told(r#"{"nmae": {"firstName": "Ada"}}"#),
            [
                "nmae: unknown field; did you mean `name`?",
                "id: missing",
                "name: missing"
            ]
        );
        // serde_json keeps members in the order of the document, or of their names, as the build has it.
        let sorted = |mut told: Vec<String>| {
            told.sort();
            told
        };
        assert_eq!(
            sorted(told(
                r#"{"name": {"first_name": "A", "x": 1}, "places": [{"city": 5}, {"kind": "TWO", "citty": "C"}], "kind": []}"#
            )),
            [
                "id: missing",
                "kind: wrong type: an array",
                "name.firstName: missing",
                "name.first_name: unknown field; did you mean `firstName`?",
                "name.lastName: missing",
                "name.x: unknown field",
                "places[0].city: wrong type: a number",
                "places[0].kind: missing",
                "places[1].citty: unknown field; did you mean `city`?",
                "places[1].city: missing",
                "places[1].kind: unknown value",
            ]
        );
    }

    #[test]
    fn a_name_that_is_given_rightly_too_is_not_proposed() {
        let json = r#"{"id": 1, "nmae": {}, "name": {}}"#;
        assert_eq!(told(json)[0], "nmae: unknown field");
    }

    #[test]
    fn what_is_well_and_what_is_no_object_have_no_misfits() {
        let name = r#"{"firstName": "A", "lastName": "B"}"#;
        assert!(told(&format!(r#"{{"id": 1, "name": {name}, "kind": null}}"#)).is_empty());
        for other in ["[]", "5", "{", ""] {
            assert!(told(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn what_serde_takes_for_something_else_is_a_misfit() {
        let names = r#"{"id": 1, "name": ["A", "B"]}"#;
        let kind =
            r#"{"id": 1, "name": {"firstName": "A", "lastName": "B"}, "kind": {"ONE": null}}"#;
        for (json, expected) in [
            (names, "name: wrong type: an array; expected an object"),
            (kind, "kind: wrong type: an object; expected a string"),
        ] {
            assert!(serde_json::from_str::<Document>(json).is_ok());
            let misfit = lenient_misfit::<Document>(json.as_bytes());
            assert_eq!(misfit.map(|misfit| misfit.to_string()).unwrap(), expected);
        }
        let well = kind.replace(r#"{"ONE": null}"#, r#""ONE""#);
        assert_eq!(lenient_misfit::<Document>(well.as_bytes()), None);
    }

    #[test]
    fn a_document_that_is_wrong_all_over_is_told_up_to_a_bound() {
        let many: Vec<String> = (0..500).map(|n| format!(r#""m{n}": {n}"#)).collect();
        assert_eq!(told(&format!("{{{}}}", many.join(","))).len(), MOST);
        let places = vec!["{}"; 500].join(",");
        let wrong = format!(r#"{{"places": [{places}]}}"#);
        assert_eq!(told(&wrong).len(), MOST);
        assert!(told(&format!("{wrong}{}", " ".repeat(LONGEST))).is_empty());
    }
}
