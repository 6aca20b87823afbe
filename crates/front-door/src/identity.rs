//! Identifies who sends a request.
//!
//! The token (RFC 6750) is verified before the request's content is read. The request then carries its [`Access`]. The
//! fields of GraphQL and the routes of REST decide themselves which scopes they require.
#![expect(clippy::disallowed_methods, reason = "tokens go by the time of day")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tandem_authentication::{Access, Principal, Rejection, Verifier};
use tokio::time::Instant;

use crate::http::admission::Client;

/// Paths where a bad token counts as none. Probes and scrapers may send anything, and operators send a secret that is
/// not a token.
const WITHOUT_TOKEN: [&str; 2] = ["/actuator", "/admin"];

/// Identifies callers. Without a verifier authentication is off, and every caller may do everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identifier {
    verifier: Option<Verifier>,
    /// How much longer than its token a subscription lasts.
    grace: Duration,
}

/// Who sends a request, or why that is not known.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    access: Result<Access, Rejection>,
    /// Until when the token is accepted; `None` without a token.
    good_until: Option<SystemTime>,
    grace: Duration,
}

impl Identifier {
    pub(crate) fn new(verifier: Option<Verifier>, grace: Duration) -> Self {
        Self { verifier, grace }
    }

    /// The caller with these headers, if the token was verified before. It is cheap, and other clients cannot make it
    /// expensive.
    pub(crate) fn remembered(&self, headers: &HeaderMap) -> Option<Identity> {
        let verifier = self.verifier.as_ref()?;
        let principal = verifier.remembered(bearer(headers).ok()??)?;
        Some(self.bearer(verifier, principal))
    }

    fn bearer(&self, verifier: &Verifier, principal: Principal) -> Identity {
        Identity {
            good_until: instant(verifier.good_until(&principal)),
            grace: self.grace,
            ..Identity::of(Ok(Access::Bearer(principal)))
        }
    }

    /// The caller with these headers, if it is known without a verification: there is no token, none is required, or it
    /// was verified before.
    pub(crate) fn at_once(&self, headers: &HeaderMap) -> Option<Identity> {
        if self.verifier.is_none() {
            return Some(Identity::of(Ok(Access::Open)));
        }
        match bearer(headers) {
            Ok(Some(_)) => self.remembered(headers),
            Ok(None) => Some(Identity::of(Ok(Access::Anonymous))),
            Err(rejection) => Some(Identity::of(Err(rejection))),
        }
    }

    /// Verifies the token in these headers, if there is one. This may read an issuer's keys, within their own time
    /// limit.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Identity {
        let Some(verifier) = &self.verifier else {
            return Identity::of(Ok(Access::Open));
        };
        let token = match bearer(headers) {
            Ok(Some(token)) => token,
            Ok(None) => return Identity::of(Ok(Access::Anonymous)),
            Err(rejection) => return Identity::of(Err(rejection)),
        };
        match verifier.verify_now(token).await {
            Ok(principal) => self.bearer(verifier, principal),
            Err(rejection) => {
                metrics::counter!("auth_rejections_total", "reason" => rejection.reason())
                    .increment(1);
                Identity::of(Err(rejection))
            }
        }
    }
}

impl Identity {
    fn of(access: Result<Access, Rejection>) -> Self {
        Self {
            access,
            good_until: None,
            grace: Duration::ZERO,
        }
    }

    /// What an operation that starts now may do.
    ///
    /// # Errors
    /// Why the token is not accepted, or not any more.
    pub(crate) fn access(&self) -> Result<Access, Rejection> {
        if self
            .good_until
            .is_some_and(|until| until <= SystemTime::now())
        {
            return Err(Rejection::Expired);
        }
        self.access.clone()
    }

    /// When subscriptions that start now must end.
    pub(crate) fn ends(&self) -> Option<Instant> {
        let left = self
            .good_until?
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        Instant::now().checked_add(left.saturating_add(self.grace))
    }

    /// The key by which a client at this address is counted: its subject, if that is known.
    pub(crate) fn client(&self, address: Client) -> Client {
        match &self.access {
            Ok(Access::Bearer(Principal { subject, .. })) => Client::named(subject),
            _ => address,
        }
    }
}

/// Whether a bad token counts as none at this path.
pub(crate) fn is_without_token(path: &str) -> bool {
    WITHOUT_TOKEN.iter().any(|begin| {
        path.strip_prefix(begin)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The HTTP status of a rejected token, for clients that accept one other than 200.
pub(crate) fn status(rejection: &Rejection) -> StatusCode {
    if is_unknown(rejection) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::UNAUTHORIZED
    }
}

/// Says how to authenticate (RFC 6750, section 3), or when to try again.
pub(crate) fn challenge<B>(mut response: Response<B>, rejection: &Rejection) -> Response<B> {
    let (name, value) = if is_unknown(rejection) {
        (header::RETRY_AFTER, "1")
    } else {
        (header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")
    };
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    response
}

/// Whether the token could not be judged because its issuer's keys are not available.
pub(crate) fn is_unknown(rejection: &Rejection) -> bool {
    *rejection == Rejection::KeysUnavailable
}

/// The token of a request (RFC 6750, section 2.1). An empty one counts as none, and two are ambiguous.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Rejection::Malformed);
    }
    let value = value.to_str().map_err(|_| Rejection::Malformed)?.trim();
    Ok(match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Some(token.trim()).filter(|token| !token.is_empty())
        }
        _ => None,
    })
}

fn instant(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_what_follows_bearer_and_two_are_refused() {
        assert_eq!(bearer(&headers(&[])), Ok(None));
        assert_eq!(bearer(&headers(&["Bearer a.b.c"])), Ok(Some("a.b.c")));
        assert_eq!(bearer(&headers(&["bEARER  a.b.c "])), Ok(Some("a.b.c")));
        for none in ["Bearer", "Bearer ", "Basic YTpi", ""] {
            assert_eq!(bearer(&headers(&[none])), Ok(None), "{none}");
        }
        assert_eq!(
            bearer(&headers(&["Bearer a", "Bearer b"])),
            Err(Rejection::Malformed)
        );
    }

    #[test]
    fn only_health_and_operators_routes_pass_over_a_bad_token() {
        for path in ["/actuator", "/actuator/health", "/admin/rebuild"] {
            assert!(is_without_token(path), "{path}");
        }
        for path in [
            "/",
            "/graphql",
            "/administration",
            "/orders/list",
            "/actuatorx",
        ] {
            assert!(!is_without_token(path), "{path}");
        }
    }

    #[tokio::test]
    async fn without_a_verifier_everybody_may_do_everything() {
        let identity = Identifier::default()
            .identify(&headers(&["Bearer nonsense"]))
            .await;
        assert_eq!(identity.access(), Ok(Access::Open));
        assert!(identity.ends().is_none());
        assert!(Identifier::default().at_once(&headers(&[])).is_some());
    }

    #[test]
    fn a_refusal_says_how_to_authenticate_or_when_to_ask_again() {
        let told = |rejection| challenge(Response::new(()), &rejection);
        let bad = told(Rejection::Signature);
        assert_eq!(
            bad.headers()[header::WWW_AUTHENTICATE],
            "Bearer error=\"invalid_token\""
        );
        assert!(!bad.headers().contains_key(header::RETRY_AFTER));
        let unknown = told(Rejection::KeysUnavailable);
        assert_eq!(unknown.headers()[header::RETRY_AFTER], "1");
        assert!(!unknown.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn a_connection_outlives_its_token_without_its_rights() {
        let principal = |until: SystemTime| Identity {
            good_until: Some(until),
            ..Identity::of(Ok(Access::Bearer(Principal {
                subject: "7".into(),
                scopes: Default::default(),
                expires_at: 0,
            })))
        };
        let now = SystemTime::now();
        let expired = principal(now - Duration::from_secs(1));
        assert_eq!(expired.access(), Err(Rejection::Expired));
        assert!(expired.ends().unwrap() <= Instant::now());
        let good = principal(now + Duration::from_secs(60));
        assert!(good.access().is_ok());
        assert!(good.ends().unwrap() > Instant::now());
    }
}
