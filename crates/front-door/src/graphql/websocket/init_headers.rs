//! Headers of the payload of `connection_init`.

use axum::http::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;

/// Headers that a client may give in the payload of `connection_init`, as a browser cannot set them on the handshake.
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

/// Takes headers from the payload of `connection_init`: its members, or those of its member `headers`.
pub(super) fn take_headers(headers: &mut HeaderMap, payload: Option<&RawValue>) {
    let Some(serde_json::Value::Object(payload)) =
        payload.and_then(|raw| serde_json::from_str(raw.get()).ok())
    else {
        return;
    };
    let nested = payload
        .get("headers")
        .and_then(serde_json::Value::as_object);
    for (name, value) in nested.into_iter().flatten().chain(&payload) {
        let name = name.to_ascii_lowercase();
        let known = OF_INIT.iter().find(|(known, _)| *known == name);
        if let Some((_, header)) = known
            && let Some(Ok(value)) = value.as_str().map(HeaderValue::from_str)
        {
            headers.insert(*header, value);
        }
    }
}
