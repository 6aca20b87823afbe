//! Reads JSON that comes from outside. An error names the field, the reason and the expected value in JSON's terms. It
//! leaves out the given value, which may be personal data.

mod survey;

use std::{collections::BTreeMap, fmt, str::Utf8Error};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, error::Category};

pub use survey::{lenient_misfit, misfits};

/// A part of a document that does not have the expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The place in the document, such as `addresses[0].city`. Empty for the whole document.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What was expected, if that is known.
    pub expected: Option<String>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(formatter, "{}", self.reason)?,
            field => write!(formatter, "{field}: {}", self.reason)?,
        }
        match &self.expected {
            Some(expected) => write!(formatter, "; expected {expected}"),
            None => Ok(()),
        }
    }
}

/// Why a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The document is not JSON. The error has line and column.
    #[error("no JSON: {0}")]
    Syntax(serde_json::Error),
    /// The document is not UTF-8, which JSON must be (RFC 8259, section 8.1). This also covers members that nobody
    /// reads.
    #[error("no JSON: {0}")]
    Encoding(Utf8Error),
    /// The document is JSON but does not have the expected form.
    #[error("{0}")]
    Misfit(Misfit),
}

/// Reads a document that is an object.
///
/// # Errors
/// When the document is not JSON, or does not fit `T`.
pub fn read_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, JsonError> {
    // Serde checks the encoding only of the parts that it reads.
    let json = str::from_utf8(json).map_err(JsonError::Encoding)?;
    // Serde would accept an array for a struct, field by field.
    let is_array = json.trim_ascii_start().starts_with('[');
    if !is_array {
        match serde_json::from_str(json) {
            Ok(value) => return Ok(value),
            // Other errors fall through: a syntax error further down takes precedence over a misfit.
            Err(error) if matches!(error.classify(), Category::Eof | Category::Io) => {
                return Err(JsonError::Syntax(error));
            }
            Err(_) => {}
        }
    }
    if let Err(syntax) = serde_json::from_str::<IgnoredAny>(json) {
        return Err(JsonError::Syntax(syntax));
    }
    if is_array {
        return Err(JsonError::Misfit(Misfit {
            field: String::new(),
            reason: "wrong type: an array".to_owned(),
            expected: Some(OBJECT.to_owned()),
        }));
    }
    // This second pass runs only after an error, because tracking the path costs time.
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let error = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let path = error.path().to_string();
    let inner = error.into_inner();
    let sentence = inner.to_string();
    if inner.classify() == Category::Data || sentence.starts_with(NO_VARIANT) {
        Err(JsonError::Misfit(explain(&path, &sentence)))
    } else {
        Err(JsonError::Syntax(inner))
    }
}

const OBJECT: &str = "an object";
const ARRAY: &str = "an array";
/// The start of serde_json's error when it expects the name of a variant and finds something else.
const NO_VARIANT: &str = "expected value";

/// Turns serde's error text into field, reason and expectation, without the given value.
fn explain(path: &str, sentence: &str) -> Misfit {
    // The path locates the misfit, so line and column are not needed.
    let sentence = sentence
        .rsplit_once(" at line ")
        .map_or(sentence, |(sentence, _)| sentence);
    let here = if path == "." { "" } else { path };
    let within = |name: &str| {
        if here.is_empty() {
            name.to_owned()
        } else {
            format!("{here}.{name}")
        }
    };
    let misfit = |field: String, reason: &str, expected: Option<String>| Misfit {
        field,
        reason: reason.to_owned(),
        expected,
    };
    if let Some(name) = quoted_after(sentence, "missing field ") {
        let required = "a value; the field is required";
        return misfit(within(name), "missing", Some(required.to_owned()));
    }
    if let Some(name) = quoted_after(sentence, "unknown field ") {
        let field = if here == name || here.ends_with(&format!(".{name}")) {
            here.to_owned()
        } else {
            within(name)
        };
        return misfit(field, "unknown field", expectation(sentence));
    }
    if sentence.starts_with(NO_VARIANT) {
        let a_string = Some("a string".to_owned());
        return misfit(here.to_owned(), "wrong type", a_string);
    }
    if sentence.starts_with("invalid length ") {
        let expected = expectation(sentence);
        // Serde accepts an array for a struct, field by field.
        let is_struct = expected.as_deref().is_some_and(|it| it.starts_with(OBJECT));
        let reason = if is_struct {
            "wrong type: an array"
        } else {
            "wrong number of elements"
        };
        return misfit(here.to_owned(), reason, expected);
    }
    for (prefix, reason) in [
        ("unknown variant ", "unknown value"),
        ("invalid value: ", "value out of range"),
    ] {
        if sentence.starts_with(prefix) {
            return misfit(here.to_owned(), reason, expectation(sentence));
        }
    }
    if let Some(rest) = sentence.strip_prefix("invalid type: ") {
        // The kind comes first. The value, if there is one, follows in quotes.
        let kind = rest
            .split([',', '"', '`'])
            .next()
            .unwrap_or_default()
            .trim();
        let reason = format!("wrong type: {}", json_kind(kind));
        return misfit(here.to_owned(), &reason, expectation(sentence));
    }
    misfit(here.to_owned(), sentence, None)
}

/// The name in backticks behind `prefix`, if the text starts with `prefix`.
fn quoted_after<'a>(sentence: &'a str, prefix: &str) -> Option<&'a str> {
    sentence
        .strip_prefix(prefix)?
        .strip_prefix('`')?
        .split('`')
        .next()
}

/// What serde expected. The given value comes first and may contain any text, so the last match counts.
fn expectation(sentence: &str) -> Option<String> {
    let (_, expected) = sentence.rsplit_once(", expected ")?;
    let expected = expected.replace('`', "");
    Some(in_terms_of_json(&expected).map_or(expected, str::to_owned))
}

/// The term of JSON for an expectation that serde names in Rust's terms. `None` if serde's own words are clear enough.
fn in_terms_of_json(expected: &str) -> Option<&'static str> {
    Some(match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a map" | "map" => OBJECT,
        "a sequence" | "sequence" => ARRAY,
        "string or map" | "variant identifier" | "a borrowed string" | "a character" => "a string",
        "unit" => "null",
        _ if expected.starts_with("struct ") => OBJECT,
        _ if expected.starts_with("tuple ") || expected.starts_with("a tuple ") => ARRAY,
        _ if expected.starts_with("enum ") => "a string",
        _ => return None,
    })
}

/// The term of JSON for a kind that serde names in Rust's terms.
fn json_kind(kind: &str) -> &str {
    match kind {
        "map" => OBJECT,
        "sequence" => ARRAY,
        "integer" | "floating point" | "number" => "a number",
        "string" => "a string",
        "boolean" => "a boolean",
        "unit value" | "null" | "Option value" => "null",
        other => other,
    }
}

/// The same value with the members of every object sorted by name. The order in which serde_json keeps members depends
/// on how it was built.
#[must_use]
pub fn in_order_of_name(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, in_order_of_name(value)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
        Value::Array(items) => items.into_iter().map(in_order_of_name).collect(),
        plain => plain,
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
        words: Vec<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", expecting = "an object with firstName")]
    struct Name {
        first_name: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Kind {
        One,
        Other,
    }

    #[derive(Debug, Deserialize)]
    struct Plain {
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        value: bool,
    }

    fn told<T: DeserializeOwned + fmt::Debug>(json: &str) -> String {
        match read_object::<T>(json.as_bytes()) {
            Err(JsonError::Misfit(misfit)) => misfit.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_path_and_in_the_terms_of_json() {
        let name = r#""name": {"firstName": "Ada"}"#;
        for (json, expected) in [
            (
                r#"{"id": 1, "name": "Ada"}"#.to_owned(),
                "name: wrong type: a string; expected an object with firstName",
            ),
            (
                r#"{"id": 1, "name": []}"#.to_owned(),
                "name: wrong type: an array; expected an object with firstName",
            ),
            (
                r#"{"id": "secret", "name": {}}"#.to_owned(),
                "id: wrong type: a string; expected a whole number that is not negative",
            ),
            (
                r#"{"id": 1, "name": {}}"#.to_owned(),
                "name.firstName: missing; expected a value; the field is required",
            ),
            (
                format!(r#"{{"id": 1, {name}, "words": {{}}}}"#),
                "words: wrong type: an object; expected an array",
            ),
            (
                format!(r#"{{"id": 1, {name}, "words": [1]}}"#),
                "words[0]: wrong type: a number; expected a string",
            ),
            (
                format!(r#"{{"id": 1, {name}, "kind": "NONE"}}"#),
                "kind: unknown value; expected one of ONE, OTHER",
            ),
            ("[1]".to_owned(), "wrong type: an array; expected an object"),
            (
                "\"x\"".to_owned(),
                "wrong type: a string; expected an object",
            ),
        ] {
            // Serde joins two names with "or".
            let told = told::<Document>(&json).replace("ONE or OTHER", "one of ONE, OTHER");
            assert_eq!(told, expected, "{json}");
        }
        assert_eq!(
            told::<Plain>(r#"{"inner": 5}"#),
            "inner: wrong type: a number; expected an object"
        );
        assert_eq!(
            told::<Plain>(r#"{"inner": []}"#),
            "inner: wrong type: an array; expected an object"
        );
    }

    #[test]
    fn a_kind_of_json_where_a_name_is_to_stand_is_no_broken_document() {
        let json = r#"{"id": 1, "name": {"firstName": "Ada"}, "kind": 5}"#;
        assert!(told::<Document>(json).starts_with("kind: wrong type"));
    }

    #[test]
    fn broken_json_is_told_before_what_does_not_fit() {
        for json in [r#"{"id": "x", "name": "#, "", "{} {}"] {
            let read = read_object::<Document>(json.as_bytes());
            assert!(matches!(read, Err(JsonError::Syntax(_))), "{json}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_no_json_wherever_that_is() {
        for json in [
            b"{\"id\": \"1\", \"not read\": \"\xff\"}".as_slice(),
            b"{\"id\": \"1\", \"\xff\": 1}",
            b"\xff",
        ] {
            let read = read_object::<Document>(json);
            assert!(matches!(read, Err(JsonError::Encoding(_))), "{json:?}");
        }
    }
}
