//! Idempotency keys. Two requests are the same if key, caller, operation, target and input are the same.

use sha2::{Digest, Sha256};

/// A caller's key for one request. The key is scoped to the caller, the operation and the target. The same text from
/// another caller, or for another operation or target, is another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The key under which the answer is stored: a digest in lower-case hexadecimal.
    pub key: String,
    /// The key under which an earlier version would have stored the answer. Such an answer is at most a day old and
    /// still valid.
    pub before: Option<String>,
    /// A digest of the input. The same key with another input is a mistake of the caller.
    pub input: String,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The caller.
    pub caller: &'a str,
    /// The operation, such as `updateCustomer`.
    pub operation: &'a str,
    /// The id of the aggregate. Empty if the request creates a new one.
    pub target: &'a str,
    /// The input. Fields that are null count as absent, so the digest stays the same when a later version adds a field.
    pub input: &'a serde_json::Value,
}

/// The given text cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "has {characters} characters; expected 1 to {max} without control characters, such as a UUID",
    max = RequestKey::MAX_LENGTH
)]
pub struct InvalidKey {
    characters: usize,
}

impl RequestKey {
    /// Most characters in a key that a caller gives.
    pub const MAX_LENGTH: usize = 200;

    /// Makes the key of this request from the text that the caller gave.
    ///
    /// # Errors
    /// When the text is empty, has more than [`Self::MAX_LENGTH`] characters, or contains control characters.
    pub fn new(request: Request<'_>, given: &str) -> Result<Self, InvalidKey> {
        let characters = given.chars().count();
        if !(1..=Self::MAX_LENGTH).contains(&characters) || given.chars().any(char::is_control) {
            return Err(InvalidKey { characters });
        }
        let Request {
            caller,
            operation,
            target,
            input,
        } = request;
        Ok(Self {
            key: digest(&[caller, operation, target, given]),
            before: None,
            // The digest includes the caller's key, which is stored nowhere. The digest of a card number alone could be
            // found by trying all numbers.
            input: digest(&[given, &without_nulls(input.clone()).to_string()]),
        })
    }

    /// The same, with the key under which an earlier version would have stored the answer.
    #[must_use]
    pub fn also_known_as(mut self, before: String) -> Self {
        self.before = Some(before);
        self
    }

    /// All keys under which an answer to this request may be stored.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.key.as_str()).chain(self.before.as_deref())
    }
}

/// The answer that the first request with a key got.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstAnswer<A> {
    /// The state after that request.
    pub state: A,
    /// [`RequestKey::input`] of that request. `None` if an earlier version stored the answer.
    pub input: Option<String>,
}

/// The length precedes each part, so two different lists of parts never give the same bytes.
fn digest(parts: &[&str]) -> String {
    let all = parts.iter().fold(Sha256::new(), |all, part| {
        all.chain_update(part.len().to_be_bytes())
            .chain_update(part)
    });
    format!("{:x}", all.finalize())
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn key(caller: &str, operation: &str, target: &str, input: &Value, given: &str) -> RequestKey {
        let request = Request {
            caller,
            operation,
            target,
            input,
        };
        RequestKey::new(request, given).unwrap()
    }

    #[test]
    fn a_key_belongs_to_caller_operation_and_target() {
        let input = json!({"a": 1});
        let keys = [
            key("a", "b", "c", &input, "d"),
            key("ab", "", "c", &input, "d"),
            key("x", "b", "c", &input, "d"),
            key("a", "x", "c", &input, "d"),
            key("a", "b", "x", &input, "d"),
            key("a", "b", "c", &input, "x"),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(keys[index + 1..].iter().all(|other| other.key != one.key));
        }
        assert_eq!(keys[0], key("a", "b", "c", &input, "d"));
    }

    #[test]
    fn another_input_is_told_and_a_null_is_no_input() {
        let one = key("a", "b", "c", &json!({"name": {"first": "A"}}), "d");
        let null = key(
            "a",
            "b",
            "c",
            &json!({"name": {"first": "A", "last": null}, "more": null}),
            "d",
        );
        let other = key("a", "b", "c", &json!({"name": {"first": "B"}}), "d");
        assert_eq!(one, null);
        assert_eq!(one.key, other.key);
        assert_ne!(one.input, other.input);
    }

    #[test]
    fn a_key_has_one_to_two_hundred_characters() {
        let input = Value::Null;
        let request = Request {
            caller: "a",
            operation: "b",
            target: "",
            input: &input,
        };
        let long = "x".repeat(201);
        for wrong in ["", "a\nb", long.as_str()] {
            assert!(RequestKey::new(request, wrong).is_err(), "{wrong:?}");
        }
        assert!(RequestKey::new(request, &"ä".repeat(200)).is_ok());
    }
}
