//! The operator's routes of a running service: dead letters, and other work that only the owner of the store can do.
//!
//! The routes are under `/admin` on the service's own port. The gateway passes some of them on for its operator's page.
//! In both cases access is decided here. A caller needs the token that is derived from the sealing key (so there is no
//! second secret to distribute), or a token with the scope `operations`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use tandem_authentication::{Access, Denial, Scope};

use tandem_event_path::sealing::Sealer;
use tandem_service::web::access::denied;

pub mod audit;
pub mod dead_letters;
mod documents;
pub mod health;
pub mod keys;
pub mod log;
pub mod openapi;
pub mod rebuild;
pub mod rotation;

/// Whether the caller may see personal data: with the token of the sealing key, or with the scope `customers:read`.
fn may_see_persons(access: &Access) -> bool {
    access
        .principal()
        .is_none_or(|principal| principal.has(Scope::CustomersRead))
}

/// The bearer token of an operator's request.
#[derive(Clone)]
pub struct AdminToken {
    newest: Arc<str>,
    /// The tokens of sealing keys that were replaced.
    older: Arc<[String]>,
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AdminToken")
    }
}

impl AdminToken {
    /// The token for everybody who has this sealing key.
    #[must_use]
    pub fn of(sealer: &Sealer) -> Self {
        let token = |sealer: &Sealer| {
            let digest = Sha256::digest(sealer.derive("tandem operator"));
            URL_SAFE_NO_PAD.encode(digest)
        };
        Self {
            newest: token(sealer).into(),
            older: sealer.older().iter().map(token).collect(),
        }
    }

    /// The token's text, for sending.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.newest
    }

    /// Whether a header's value contains this token. The comparison takes the same time wherever the values differ.
    fn is_carried_by(&self, header: &str) -> bool {
        let Some(given) = header.strip_prefix("Bearer ") else {
            return false;
        };
        // Digests are compared, so that the time does not reveal how much of the token was right.
        let given = Sha256::digest(given);
        let mut all = std::iter::once(&*self.newest).chain(self.older.iter().map(String::as_str));
        all.any(|token| given == Sha256::digest(token))
    }
}

/// Requires the token on these routes.
pub fn guarded(routes: Router, token: AdminToken) -> Router {
    routes.layer(middleware::from_fn_with_state(token, require))
}

async fn require(State(token): State<AdminToken>, request: Request, next: Next) -> Response {
    let carried = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| token.is_carried_by(value));
    if carried {
        return next.run(request).await;
    }
    // Operators must authenticate even when authentication is off.
    let refusal = match request.extensions().get::<Access>().and_then(Access::principal) {
        Some(principal) if principal.has(Scope::Operations) => return next.run(request).await,
        Some(_) => denied(Denial::Forbidden(Scope::Operations), request.uri().path()),
        None => denied(Denial::Unauthenticated, request.uri().path())
            .with_detail("an operator's request carries the token that is derived from the sealing key; the tandem command does so when it is given the key (--sealing-key-file); where authentication is on, a token with the scope `operations` will do too"),
    };
    refusal.into_response()
}
