//! What the caller of a REST route may do, and the answer to one that may not.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tandem_authentication::{Access, Denial, Scope};

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

/// The answer to a request that may not do what it asks for (401 or 403): a problem that says how it could (RFC 6750, section 3).
#[derive(Clone, Debug)]
pub struct Denied {
    problem: Problem,
    /// The scope that the token lacks.
    missing: Option<Scope>,
}

/// The answer to a request at `path` that may not do what it asks for.
#[must_use]
pub fn denied(denial: Denial, path: &str) -> Denied {
    let (status, missing) = match denial {
        Denial::Unauthenticated => (StatusCode::UNAUTHORIZED, None),
        Denial::Forbidden(scope) => (StatusCode::FORBIDDEN, Some(scope)),
    };
    let problem = Problem::new(status)
        .with_detail(denial.to_string())
        .with_instance(path);
    Denied { problem, missing }
}

impl Denied {
    /// Says what would be right in other words.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self {
            problem: self.problem.with_detail(detail),
            ..self
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some(scope) = self.missing
            && let Ok(challenge) = HeaderValue::from_str(&format!(
                "Bearer error=\"insufficient_scope\", scope=\"{scope}\""
            ))
        {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_is_told_how_it_could_be_had() {
        for (denial, status, challenge) in [
            (Denial::Unauthenticated, 401, "Bearer"),
            (
                Denial::Forbidden(Scope::OrdersRead),
                403,
                "Bearer error=\"insufficient_scope\", scope=\"orders:read\"",
            ),
        ] {
            let response = denied(denial, "/orders/list")
                .with_detail("ask for it")
                .into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], challenge);
        }
    }
}
