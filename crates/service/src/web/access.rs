//! The rights of a REST route's caller, and the answer to a caller without the required rights.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tandem_authentication::{Access, Denial, Scope};

use super::problem::Problem;

/// The caller's rights, as the front door found them. There are none if nothing upstream has set them.
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

/// The answer to a request without the required rights (401 or 403). It is a problem that says what would be sufficient
/// (RFC 6750, section 3).
#[derive(Clone, Debug)]
pub struct Denied {
    problem: Problem,
    /// The scope that the token lacks.
    missing: Option<Scope>,
}

/// Makes the answer for a request at `path`.
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
    /// Replaces the detail that says what would be right.
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
