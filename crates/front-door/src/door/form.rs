//! The form of requests when they arrive and of answers when they leave.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, Uri, header};

use crate::http::media::accepted;
use crate::http::origin::{self, From};
use crate::http::page;
use crate::http::{REQUEST_ID, is_request_id};

/// Reduces a request to its path, without a query and without a body.
pub(super) fn without_operation(parts: &mut Parts) {
    let path = parts.uri.path().parse::<Uri>();
    parts.uri = path.unwrap_or_else(|_| Uri::from_static("/"));
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
    ] {
        parts.headers.remove(name);
    }
}

/// Whether the body comes in a transfer coding other than `chunked`: nothing here decodes those (RFC 9112, section
/// 6.1).
pub(super) fn is_in_unknown_coding(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .any(|coding| {
            !coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked")
        })
}

/// The size of a request's head in bytes, in the form of RFC 9112.
pub(super) fn size_of_head(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
    let headers = parts.headers.iter();
    headers.fold(target, |size, (name, value)| {
        size + name.as_str().len() + value.len() + ": \r\n".len()
    })
}

/// Keeps the caller's request id, or generates one.
#[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
pub(super) fn name(parts: &mut Parts) -> Option<HeaderValue> {
    let given = parts
        .headers
        .get(REQUEST_ID)
        .filter(|id| is_request_id(id))
        .cloned();
    let id = given.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).ok())?;
    parts.headers.insert(REQUEST_ID, id.clone());
    Some(id)
}

/// Whether a browser asks for the page at the same address.
pub(super) fn wants_page(parts: &Parts) -> bool {
    let is_get = parts.method == Method::GET || parts.method == Method::HEAD;
    let mut ranges = accepted(&parts.headers).unwrap_or_default();
    // The sort is stable: of several ranges with the highest quality, the first one wins.
    ranges.sort_by_key(|range| std::cmp::Reverse(range.quality));
    is_get
        && ranges.first().is_some_and(|range| {
            range.quality > 0
                && (range.essence == "text/html" || range.essence == "application/xhtml+xml")
        })
}

pub(super) fn finished(
    mut response: Response<Body>,
    from: &From,
    is_preflight: bool,
    id: Option<HeaderValue>,
) -> Response<Body> {
    let headers = response.headers_mut();
    origin::answer(from, is_preflight, headers);
    page::secure(headers);
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_or_in_chunks_and_in_no_other_coding() {
        let is_unknown = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            is_in_unknown_coding(&headers)
        };
        let known: [&[&'static str]; 3] = [&[], &["chunked"], &["Chunked "]];
        for known in known {
            assert!(!is_unknown(known), "{known:?}");
        }
        let unknown: [&[&'static str]; 4] = [
            &["gzip, chunked"],
            &["gzip", "chunked"],
            &["chunked, chunked"],
            &["identity"],
        ];
        for unknown in unknown {
            assert!(is_unknown(unknown), "{unknown:?}");
        }
    }
}
