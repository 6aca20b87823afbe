//! A GraphQL request in the form of GraphQL over HTTP, of the WebSocket protocols and of Apollo's clients.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::RequestError;
use crate::json::{check_depth, check_escapes, count_values};

/// The most values in the JSON of a request.
const MOST_VALUES: usize = 50_000;

/// What to send instead of a body that cannot be read.
const ONE_OBJECT: &str =
    r#"send one request as a JSON object: {"query": "…", "variables": {…}}, not a batch"#;

/// One request. Variables and extensions stay as they were written, so numbers in them stay exact.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) query: Option<String>,
    pub(super) operation_name: Option<String>,
    /// A JSON object.
    pub(super) variables: Option<Box<RawValue>>,
    /// A JSON object.
    pub(super) extensions: Option<Box<RawValue>>,
    /// The id of a trusted document (GraphQL over HTTP, appendix persisted documents).
    pub(super) document_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(borrow, default)]
    query: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    operation_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    variables: Option<&'a RawValue>,
    #[serde(borrow, default)]
    extensions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    document_id: Option<Cow<'a, str>>,
}

impl Call {
    /// Reads a body, or the payload of a `subscribe` message.
    ///
    /// # Errors
    /// When it is not such a request, or nests deeper than `depth` levels.
    pub(super) fn from_json(body: &Bytes, depth: usize) -> Result<Self, RequestError> {
        check_depth(body, depth).map_err(|error| RequestError::request(error.to_string()))?;
        if count_values(body) > MOST_VALUES {
            return Err(RequestError::limit(
                format!(
                    "a request has at most {MOST_VALUES} values here: send what it holds in several"
                ),
                None,
            ));
        }
        let begin = body.trim_ascii_start().first();
        if begin != Some(&b'{') {
            let what = match begin {
                None => "the body is empty",
                Some(b'[') => "batches are not taken",
                Some(_) => "the body is no JSON object",
            };
            return Err(RequestError::request(format!("{what}: {ONE_OBJECT}")));
        }
        // The inner server may read members that are ignored here, so the whole body must be UTF-8 (RFC 8259, section
        // 8.1).
        let text = std::str::from_utf8(body).map_err(|error| {
            RequestError::request(format!("the body is not UTF-8 ({error}): {ONE_OBJECT}"))
        })?;
        check_escapes(body).map_err(|error| {
            RequestError::request(format!("the body cannot be read ({error}): {ONE_OBJECT}"))
        })?;
        let written: Written<'_> = serde_json::from_str(text).map_err(|error| {
            RequestError::request(format!(
                "the body cannot be read ({}): {ONE_OBJECT}",
                told(&error)
            ))
        })?;
        Ok(Self {
            query: written.query.map(Cow::into_owned),
            operation_name: written.operation_name.map(Cow::into_owned),
            variables: object("variables", written.variables)?.map(ToOwned::to_owned),
            extensions: object("extensions", written.extensions)?.map(ToOwned::to_owned),
            document_id: written.document_id.map(Cow::into_owned),
        })
    }

    /// Reads the query string of a URL.
    ///
    /// # Errors
    /// When `variables` or `extensions` are not JSON objects, or nest deeper than `depth` levels.
    pub(super) fn from_address(query: &str, depth: usize) -> Result<Self, RequestError> {
        let mut call = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "query" => call.query = Some(value.into_owned()),
                "operationName" => {
                    call.operation_name = Some(value.into_owned()).filter(|name| !name.is_empty());
                }
                "documentId" => call.document_id = Some(value.into_owned()),
                "variables" => call.variables = parameter("variables", &value, depth)?,
                "extensions" => call.extensions = parameter("extensions", &value, depth)?,
                _ => {}
            }
        }
        Ok(call)
    }
}

fn parameter(name: &str, value: &str, depth: usize) -> Result<Option<Box<RawValue>>, RequestError> {
    if value.is_empty() {
        return Ok(None);
    }
    check_depth(value.as_bytes(), depth)
        .map_err(|error| RequestError::request(format!("`{name}`: {error}")))?;
    check_escapes(value.as_bytes())
        .map_err(|error| RequestError::request(format!("`{name}`: {error}")))?;
    let raw: &RawValue = serde_json::from_str(value).map_err(|error| {
        RequestError::request(format!(
            "`{name}` is no JSON ({}): send a JSON object",
            told(&error)
        ))
    })?;
    Ok(object(name, Some(raw))?.map(ToOwned::to_owned))
}

/// `null` counts as absent. Anything else must be an object.
fn object<'a>(
    name: &str,
    value: Option<&'a RawValue>,
) -> Result<Option<&'a RawValue>, RequestError> {
    match value {
        Some(raw) if raw.get() == "null" => Ok(None),
        Some(raw) if !raw.get().starts_with('{') => Err(RequestError::request(format!(
            "`{name}` must be a JSON object"
        ))
        .with("field", name)),
        other => Ok(other),
    }
}

/// What serde reports, without the value that it quotes.
fn told(error: &serde_json::Error) -> String {
    let said = error.to_string();
    if error.is_data() {
        let wrong = said
            .split([',', '"', '`'])
            .next()
            .unwrap_or_default()
            .trim();
        format!("{wrong} at line {} column {}", error.line(), error.column())
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(body: &str) -> Result<Call, RequestError> {
        Call::from_json(&Bytes::copy_from_slice(body.as_bytes()), 8)
    }

    #[test]
    fn a_request_is_read_with_its_numbers_as_they_were_written() {
        let call =
            read(r#" {"query":"{a}","operationName":null,"variables":{"n":1.50},"x":1}"#).unwrap();
        assert_eq!(call.query.unwrap(), "{a}");
        assert_eq!(call.variables.unwrap().get(), r#"{"n":1.50}"#);
        assert!(call.operation_name.is_none() && call.extensions.is_none());
    }

    #[test]
    fn what_is_no_request_is_told_what_would_be_right() {
        for body in [
            "",
            " ",
            "5",
            "null",
            "[]",
            r#"[{"query":"{a}"}]"#,
            "not json",
            "{",
            r#"{"query":5}"#,
            r#"{"query":"a","query":"b"}"#,
            r#"{"query":"{a}"} x"#,
            "{\"query\":\"\u{1}\"}",
        ] {
            let error = read(body).unwrap_err();
            assert!(
                error.message().contains(r#"{"query": "#),
                "{body}: {}",
                error.message()
            );
        }
        for body in [
            b"{\"query\":\"{a}\",\"other\":\"\xff\"}".as_slice(),
            b"{\"query\":\"{a}\",\"\xff\":1}",
            b"\xff",
        ] {
            let error = Call::from_json(&Bytes::copy_from_slice(body), 8).unwrap_err();
            assert!(error.message().contains(r#"{"query": "#), "{body:?}");
        }
        for body in [
            r#"{"query":"{a}","variables":[]}"#,
            r#"{"query":"{a}","extensions":"x"}"#,
        ] {
            assert!(
                read(body)
                    .unwrap_err()
                    .message()
                    .contains("must be a JSON object")
            );
        }
    }

    #[test]
    fn a_request_with_more_values_than_anybody_needs_is_refused() {
        let body = |values: usize| {
            let variables = "1,".repeat(values - 3);
            format!(r#"{{"query":"{{a}}","variables":{{"a":[{variables}1]}}}}"#)
        };
        assert!(read(&body(MOST_VALUES)).is_ok());
        let error = read(&body(MOST_VALUES + 2)).unwrap_err();
        assert!(error.message().contains("50000 values"));
    }

    #[test]
    fn what_nests_too_deep_is_refused_in_a_body_and_in_an_address() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(8), "]".repeat(8));
        assert!(read(&format!(r#"{{"query":"{{a}}","variables":{deep}}}"#)).is_err());
        for name in ["variables", "extensions"] {
            let error = Call::from_address(&format!("query={{a}}&{name}={deep}"), 8).unwrap_err();
            assert!(error.message().contains(name) && error.message().contains("8 levels"));
        }
    }

    #[test]
    fn an_address_is_decoded() {
        let call = Call::from_address("query=%7Ba%7D+&variables=%7B%22a%22:1%7D&operationName=", 8)
            .unwrap();
        assert_eq!(call.query.unwrap(), "{a} ");
        assert_eq!(call.variables.unwrap().get(), r#"{"a":1}"#);
        assert!(call.operation_name.is_none());
    }
}
