//! The JSON body of a request, or a problem that names the field that is wrong.
//!
//! Values of the body never appear in a problem, so that neither does a card number in a log of problems.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::problem::{FieldError, Problem};

/// Extracts a JSON body. What cannot be read is answered with a [`Problem`]:
///
/// | status | when |
/// |---|---|
/// | 400 | the body is empty or not well-formed JSON; the detail has line and column |
/// | 413 | the body is over the limit |
/// | 415 | a content type is given, and it is not JSON (none at all is accepted) |
/// | 422 | a field is missing, of the wrong type, or holds an unknown value; the problem has its path |
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemJson<T>(pub T);

impl<T, S> FromRequest<S> for ProblemJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let instance = request.uri().path().to_owned();
        let read = async {
            expect_json(&request)?;
            let body = Bytes::from_request(request, state)
                .await
                .map_err(|rejection| unreadable_body(&rejection))?;
            parse_json(&body)
        };
        read.await
            .map(Self)
            .map_err(|problem: Problem| problem.with_instance(instance))
    }
}

/// Reads a JSON document, as [`ProblemJson`] does.
///
/// # Errors
///
/// A 400 when it is not JSON, a 422 that names the field when it does not fit `T`.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let error = match parsed {
        Ok(value) => {
            return match deserializer.end() {
                Ok(()) => Ok(value),
                Err(error) => Err(malformed(body, &error)),
            };
        }
        Err(error) => error,
    };
    // A misfit may come before a syntax error further down: well-formedness is told first.
    if let Err(syntax) = serde_json::from_slice::<IgnoredAny>(body) {
        return Err(malformed(body, &syntax));
    }
    let path = error.path().to_string();
    let inner = error.into_inner();
    match inner.classify() {
        Category::Data => Err(Problem::invalid_field(explain(&path, &inner.to_string()))),
        _ => Err(malformed(body, &inner)),
    }
}

fn expect_json(request: &Request) -> Result<(), Problem> {
    let Some(given) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or("unreadable");
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(Problem::unsupported_media_type(given))
    }
}

fn unreadable_body(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large(None)
    } else {
        Problem::malformed_body("the body could not be read to its end")
    }
}

fn malformed(body: &[u8], error: &serde_json::Error) -> Problem {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Problem::malformed_body("the body is empty; send a JSON document");
    }
    Problem::malformed_body(error.to_string())
}

/// Turns serde's sentence into field, reason and expectation, without the value that was given.
fn explain(path: &str, sentence: &str) -> FieldError {
    // The position of a misfit helps nobody who has its path.
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
    let field_or_body = || {
        if here.is_empty() {
            "(body)".to_owned()
        } else {
            here.to_owned()
        }
    };

    if let Some(name) = quoted_after(sentence, "missing field ") {
        return FieldError {
            field: within(name),
            reason: "missing".into(),
            expected: Some("a value; the field is required".into()),
        };
    }
    if let Some(name) = quoted_after(sentence, "unknown field ") {
        let field = if here == name || here.ends_with(&format!(".{name}")) {
            here.to_owned()
        } else {
            within(name)
        };
        return FieldError {
            field,
            reason: "unknown field".into(),
            expected: expectation(sentence),
        };
    }
    for (prefix, reason) in [
        ("unknown variant ", "unknown value"),
        ("invalid value: ", "value out of range"),
        ("invalid length ", "wrong number of elements"),
    ] {
        if sentence.starts_with(prefix) {
            return FieldError {
                field: field_or_body(),
                reason: reason.into(),
                expected: expectation(sentence),
            };
        }
    }
    if let Some(rest) = sentence.strip_prefix("invalid type: ") {
        // The kind comes first, the value (if any) follows in quotes.
        let kind = rest
            .split([',', '"', '`'])
            .next()
            .unwrap_or_default()
            .trim();
        return FieldError {
            field: field_or_body(),
            reason: format!("wrong type: {}", json_kind(kind)),
            expected: expectation(sentence),
        };
    }
    FieldError {
        field: field_or_body(),
        reason: sentence.to_owned(),
        expected: None,
    }
}

/// The name in backticks that follows `prefix` at the start of a sentence.
fn quoted_after<'a>(sentence: &'a str, prefix: &str) -> Option<&'a str> {
    sentence
        .strip_prefix(prefix)?
        .strip_prefix('`')?
        .split('`')
        .next()
}

/// What serde expected: the value that was given comes before it and may hold anything, so the last one counts.
fn expectation(sentence: &str) -> Option<String> {
    let (_, expected) = sentence.rsplit_once(", expected ")?;
    Some(expected.replace('`', ""))
}

/// serde speaks of Rust's kinds, callers think in JSON's.
fn json_kind(kind: &str) -> &str {
    match kind {
        "map" => "an object",
        "sequence" => "an array",
        "integer" | "floating point" | "number" => "a number",
        "string" => "a string",
        "boolean" => "a boolean",
        "unit value" | "null" | "Option value" => "null",
        other => other,
    }
}
