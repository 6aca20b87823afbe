//! Joins the answers to the steps of a mutation into one answer for the client.

use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{Code, Refused, RequestError};

/// The answer to one step.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    errors: Vec<Value>,
    #[serde(default)]
    extensions: serde_json::Map<String, Value>,
}

/// The answers to the steps, joined into one.
#[derive(Default)]
pub(super) struct JoinedAnswer {
    /// The members of `data`, without the braces around them.
    members: Vec<String>,
    errors: Vec<Value>,
    extensions: serde_json::Map<String, Value>,
    is_null: bool,
    /// Whether the last step was not executed at all.
    pub(super) is_refusal: bool,
}

impl JoinedAnswer {
    /// Adds the answer to a step. Returns whether the next step may start.
    pub(super) fn take(&mut self, bytes: &[u8], key: &str) -> bool {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(bytes) else {
            self.break_off(key);
            return false;
        };
        self.is_refusal = answer.data.is_none();
        self.errors
            .extend(answer.errors.into_iter().map(|mut error| {
                // The client must see which of the steps the error belongs to.
                if let Some(error) = error.as_object_mut() {
                    error
                        .entry("path")
                        .or_insert_with(|| Value::from(vec![Value::from(key)]));
                }
                error
            }));
        self.extensions.extend(answer.extensions);
        let members = answer
            .data
            .and_then(|data| data.get().trim().strip_prefix('{')?.strip_suffix('}'));
        match members {
            Some(members) => {
                if !members.trim().is_empty() {
                    self.members.push(members.to_owned());
                }
                true
            }
            None => {
                self.is_null = true;
                false
            }
        }
    }

    /// Reports that the answer to a step broke off or is not a response.
    pub(super) fn break_off(&mut self, key: &str) {
        let refused: Refused = RequestError::new(
            StatusCode::BAD_GATEWAY,
            Code::Unavailable,
            "answer",
            "the answer broke off: whether this field was carried out is not known",
        )
        .into();
        self.fail(key, &refused);
    }

    /// Reports why a step failed.
    pub(super) fn fail(&mut self, key: &str, refused: &Refused) {
        self.is_null = true;
        if let Value::Array(errors) = refused.errors() {
            self.errors.extend(errors.into_iter().map(|mut error| {
                error["path"] = Value::from(vec![Value::from(key)]);
                error
            }));
        }
    }

    /// Writes the joined answer.
    pub(super) fn written(self) -> Bytes {
        let data = if self.is_null {
            "null".to_owned()
        } else {
            format!("{{{}}}", self.members.join(","))
        };
        let mut text = format!("{{\"data\":{data}");
        if !self.errors.is_empty() {
            text.push_str(",\"errors\":");
            text.push_str(&Value::from(self.errors).to_string());
        }
        if !self.extensions.is_empty() {
            text.push_str(",\"extensions\":");
            text.push_str(&Value::from(self.extensions).to_string());
        }
        text.push('}');
        text.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_become_one_and_none_is_begun_behind_one_that_failed() {
        let mut joined = JoinedAnswer::default();
        assert!(joined.take(br#"{"data":{"a":{"x":1}},"extensions":{"k":1}}"#, "a"));
        assert!(joined.take(br#"{"data":{}}"#, "b"));
        assert!(joined.take(
            br#"{"data":{"c":null},"errors":[{"message":"m","path":["c"]}]}"#,
            "c"
        ));
        assert_eq!(
            serde_json::from_slice::<Value>(&joined.written()).unwrap(),
            serde_json::json!({"data": {"a": {"x": 1}, "c": null}, "errors": [{"message": "m", "path": ["c"]}], "extensions": {"k": 1}})
        );
        for failed in [
            &br#"{"data":null,"errors":[{"message":"m"}]}"#[..],
            br#"{"errors":[{"message":"m"}]}"#,
            b"<html>",
        ] {
            let mut joined = JoinedAnswer::default();
            joined.take(br#"{"data":{"a":1}}"#, "a");
            assert!(!joined.take(failed, "b"));
            let answer: Value = serde_json::from_slice(&joined.written()).unwrap();
            assert_eq!(answer["data"], Value::Null);
            assert_eq!(answer["errors"][0]["path"], serde_json::json!(["b"]));
        }
    }
}
