//! Headers in the payload of `connection_init`.

use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::value::RawValue;

use crate::http::{REQUEST_ID, is_request_id};

/// Headers that a client may send in the payload of `connection_init`, because a browser cannot set them on the
/// handshake.
const OF_INIT: [(&str, &str); 8] = [
    ("authorization", "authorization"),
    ("consistency", "tandem-consistency"),
    ("tandem-consistency", "tandem-consistency"),
    ("traceparent", "traceparent"),
    ("tracestate", "tracestate"),
    ("x-request-id", "x-request-id"),
    ("apollographql-client-name", "apollographql-client-name"),
    (
        "apollographql-client-version",
        "apollographql-client-version",
    ),
];

/// The longest accepted value, in bytes. A value is held as long as the connection or one of its operations is open.
const LONGEST: usize = 16 * 1024;

/// Copies headers from the payload of `connection_init`: from its members, or from those of its member `headers`.
/// Returns whether a token is among them.
pub(super) fn take_headers(headers: &mut HeaderMap, payload: Option<&RawValue>) -> bool {
    let Some(serde_json::Value::Object(payload)) =
        payload.and_then(|raw| serde_json::from_str(raw.get()).ok())
    else {
        return false;
    };
    let mut brings_token = false;
    let nested = payload
        .get("headers")
        .and_then(serde_json::Value::as_object);
    for (name, value) in nested.into_iter().flatten().chain(&payload) {
        let name = name.to_ascii_lowercase();
        let known = OF_INIT.iter().find(|(known, _)| *known == name);
        if let Some((_, taken)) = known
            && let Some(Ok(value)) = value.as_str().map(HeaderValue::from_str)
            && value.len() <= LONGEST
            && (*taken != REQUEST_ID || is_request_id(&value))
        {
            headers.insert(*taken, value);
            brings_token |= *taken == header::AUTHORIZATION.as_str();
        }
    }
    brings_token
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_are_members_of_the_payload_or_of_its_member_headers() {
        for (payload, token) in [
            (r#"{"Authorization": "Bearer a"}"#, Some("Bearer a")),
            (
                r#"{"headers": {"authorization": "Bearer a"}}"#,
                Some("Bearer a"),
            ),
            (r#"{"consistency": "v1", "cookie": "a"}"#, None),
            (r#"{"authorization": 5}"#, None),
            (r#"{"authorization": "a\nb"}"#, None),
            ("null", None),
        ] {
            let raw: Box<RawValue> = serde_json::from_str(payload).unwrap();
            let mut headers = HeaderMap::new();
            let brings_token = take_headers(&mut headers, Some(&raw));
            assert_eq!(brings_token, token.is_some(), "{payload}");
            let taken = headers.get(header::AUTHORIZATION);
            assert_eq!(taken.map(|it| it.to_str().unwrap()), token, "{payload}");
            assert!(!headers.contains_key(header::COOKIE), "{payload}");
        }
    }

    #[test]
    fn what_is_longer_than_a_header_is_not_kept_and_a_request_id_is_what_it_is_over_http() {
        let take = |name: &str, value: &str| {
            let payload = serde_json::json!({ name: value }).to_string();
            let raw: Box<RawValue> = serde_json::from_str(&payload).unwrap();
            let mut headers = HeaderMap::new();
            take_headers(&mut headers, Some(&raw));
            headers.contains_key(name)
        };
        let (long, longest) = ("x".repeat(LONGEST + 1), "x".repeat(LONGEST));
        for (name, _) in OF_INIT.iter().filter(|(name, _)| *name != "consistency") {
            assert!(!take(name, &long), "{name}");
            assert_eq!(take(name, &longest), *name != REQUEST_ID, "{name}");
        }
        assert!(take(REQUEST_ID, "r-1"));
        for wrong in ["", "a b", "\u{e9}", &"x".repeat(129)] {
            assert!(!take(REQUEST_ID, wrong), "{wrong}");
        }
    }
}
