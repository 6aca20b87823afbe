//! Who sends a request: its token (RFC 6750) is verified before anything looks at what it asks for, and what it may do goes along
//! with it as [`Access`]. The fields of GraphQL and the routes of REST decide for themselves what they need.
#![expect(clippy::disallowed_methods, reason = "tokens go by the time of day")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tandem_authentication::{Access, Principal, Rejection, Verifier};
use tokio::time::Instant;

use crate::http::admission::Client;

/// Where a bad token is as good as none: probes and scrapers send what they like, and operators a secret that is no token.
const WITHOUT_TOKEN: [&str; 2] = ["/actuator", "/admin"];

/// Tells who sends a request. Without a verifier authentication is off, and everybody may do everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identifier {
    verifier: Option<Verifier>,
    /// How much longer than its token a subscription goes on.
    grace: Duration,
}

/// Who sends a request, or why that is not known.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    access: Result<Access, Rejection>,
    /// Until when the token is taken; none without one.
    good_until: Option<SystemTime>,
    grace: Duration,
}

impl Identifier {
    pub(crate) fn new(verifier: Option<Verifier>, grace: Duration) -> Self {
        Self { verifier, grace }
    }

    /// Who sends a request with these headers, if its token was verified before: the cheap way, which others cannot make dear.
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

    /// Who sends a request with these headers, if that is known without verifying a token: there is none, none is asked for, or it was
    /// verified before.
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

    /// Verifies the token of these headers, if there is one. An issuer's keys may be read for it, within their own time limit.
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

    /// What an operation may do that begins now.
    ///
    /// # Errors
    /// Why the token is not taken, or not any more.
    pub(crate) fn access(&self) -> Result<Access, Rejection> {
        if self
            .good_until
            .is_some_and(|until| until <= SystemTime::now())
        {
            return Err(Rejection::Expired);
        }
        self.access.clone()
    }

    /// When subscriptions end that begin now.
    pub(crate) fn ends(&self) -> Option<Instant> {
        let left = self
            .good_until?
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        Instant::now().checked_add(left.saturating_add(self.grace))
    }

    /// By what a client at this address is counted: by its subject, where that is known.
    pub(crate) fn client(&self, address: Client) -> Client {
        match &self.access {
            Ok(Access::Bearer(Principal { subject, .. })) => Client::named(subject),
            _ => address,
        }
    }
}

/// Whether a bad token is as good as none at this path.
pub(crate) fn is_without_token(path: &str) -> bool {
    WITHOUT_TOKEN.iter().any(|begin| {
        path.strip_prefix(begin)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The status for those who know more than 200.
pub(crate) fn status(rejection: &Rejection) -> StatusCode {
    if is_unknown(rejection) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::UNAUTHORIZED
    }
}

/// Says how to authenticate (RFC 6750, section 3), or when to ask again.
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

/// Nothing is known of the token while its issuer's keys cannot be had.
pub(crate) fn is_unknown(rejection: &Rejection) -> bool {
    *rejection == Rejection::KeysUnavailable
}

/// The token of a request (RFC 6750, section 2.1); an empty one is none, and of two nobody knows which is meant.
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
