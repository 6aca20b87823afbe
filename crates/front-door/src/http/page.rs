//! Security headers, which keep a browser from using an answer in ways that were not intended.

use axum::http::{HeaderMap, HeaderValue, header};

/// The policy for pages without their own: nothing from other origins, and no frames.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The policy for everything that is not a page.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

/// Sets the security headers.
pub(crate) fn secure(headers: &mut HeaderMap) {
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let policy = if is_page { POLICY } else { NO_PAGE };
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(policy),
        );
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
}
