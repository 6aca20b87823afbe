//! What was asked, kept while the request itself is handed on.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

use crate::web::pages;

/// What was asked, for the count and for the explanation of an error.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    /// Whether a person looks, with a browser: an error is then a page.
    pub(super) by_person: bool,
    /// The template, not the path: paths hold ids, and every id would be a series of its own.
    pub(super) route: Option<MatchedPath>,
    pub(super) begun: Instant,
}

impl Asked {
    #[expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]
    pub(super) fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            by_person: pages::is_person(request.headers()),
            route: request.extensions().get().cloned(),
            begun: Instant::now(),
        }
    }
}
