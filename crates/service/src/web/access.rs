//! What the caller of a REST route may do, and the answer to one that may not.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tandem_authentication::{Access, Denial};

use super::problem::Problem;

/// The caller's rights, as the front door found them. Where nobody decided about them there are none.
#[derive(Clone, Debug)]
pub struct Requester(pub Access);

impl<S: Sync> FromRequestParts<S> for Requester {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(
            parts
                .extensions
                .get::<Access>()
                .cloned()
                .unwrap_or_default(),
        ))
    }
}

/// The answer to a request at `path` that may not do what it asks for (401 or 403).
#[must_use]
pub fn denied(denial: Denial, path: &str) -> Problem {
    let status = match denial {
        Denial::Unauthenticated => StatusCode::UNAUTHORIZED,
        Denial::Forbidden(_) => StatusCode::FORBIDDEN,
    };
    Problem::new(status)
        .with_detail(denial.to_string())
        .with_instance(path)
}
