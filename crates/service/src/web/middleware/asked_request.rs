//! The facts of a request that outlive it, while the request itself is passed on.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

use crate::web::pages;

/// The facts that the count, and the explanation of an error, need.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    /// Whether the request comes from a browser. An error is then a page.
    pub(super) by_person: bool,
    /// The template of the path, not the path: paths contain ids, and every id would be a new series.
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
