//! What an operator asks of a running service: dead letters, and other work that only the owner of the store can do.
//!
//! The routes are under `/admin` on the service's own port, never on the gateway's. Who may ask is who has the sealing
//! key: the token is derived from it, so there is no second secret to hand round.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{sealing::Sealer, web::problem::Problem};

pub mod dead_letters;
pub mod rebuild;

/// The secret that an operator's request carries as a bearer token.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AdminToken")
    }
}

impl AdminToken {
    /// The token of all who hold this sealing key.
    #[must_use]
    pub fn of(sealer: &Sealer) -> Self {
        let digest = Sha256::digest(sealer.derive("tandem operator"));
        Self(URL_SAFE_NO_PAD.encode(digest).into())
    }

    /// The token as it is sent.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a header's value carries this token. Takes the same time whatever differs.
    fn is_carried_by(&self, header: &str) -> bool {
        let Some(given) = header.strip_prefix("Bearer ") else {
            return false;
        };
        // Digests are compared, so that the time tells nothing of how much of the token was right.
        Sha256::digest(given) == Sha256::digest(self.0.as_bytes())
    }
}

/// Puts routes behind the token.
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
        next.run(request).await
    } else {
        Problem::new(StatusCode::UNAUTHORIZED)
            .with_detail("an operator's request carries the token that is derived from the sealing key; the tandem command does so when it is given the key (--sealing-key-file)")
            .into_response()
    }
}
