//! Verifies tokens: signature, issuer, audience and times (RFC 7519, RFC 8725).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use rand::Rng;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::clock::seconds_since_1970;
use crate::key_set::VerificationKey;
use crate::principal::Principal;
use crate::scope::Scopes;
use crate::source::{Issuer, Known, KnownKeys, SourceError};
use crate::subject::{self, MAX_SUBJECT, NoSubject};
use crate::verified_tokens::{Verified, VerifiedTokens};

/// The longest accepted token, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How often keys are read again without a request for them, so that a key that an issuer withdrew does not stay valid.
const RELOAD_INTERVAL: Duration = Duration::from_secs(300);

/// Why a token is not accepted. The message may be sent to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is not a token.
    #[error("this is no JSON Web Token of up to {MAX_TOKEN} bytes with a known `alg`")]
    Malformed,
    /// It names a key that the issuer does not publish.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The key does not permit this algorithm.
    #[error("the token names an algorithm that is not the one of its key")]
    Algorithm,
    /// The signature does not match the key or the content.
    #[error("the token's signature is not right")]
    Signature,
    /// Its header requires an extension that is not supported here (RFC 7515, section 4.1.11).
    #[error("the token's header has `crit`, which is not understood here")]
    Critical,
    /// Its issuer is not trusted.
    #[error("the token's issuer (`iss`) is not one that is trusted here")]
    Issuer,
    /// It is for another audience.
    #[error("the token is not meant for this service (`aud`)")]
    Audience,
    /// It has expired.
    #[error("the token has expired (`exp`); ask its issuer for a new one")]
    Expired,
    /// It is not valid yet.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// It has no valid subject.
    #[error("the token has no subject (`sub`) of 1 to {MAX_SUBJECT} printable characters")]
    Subject,
    /// Its subject is reserved for another issuer or for callers without a token.
    #[error(
        "the token's subject (`sub`) is reserved: `anonymous` and `legacy-rest` are callers without a token, and what begins with the name of another issuer is that issuer's"
    )]
    ReservedSubject,
    /// It is not an access token (RFC 8725, section 3.11; RFC 9068, section 4).
    #[error(
        "this is no access token (its `typ` is neither `JWT` nor `at+jwt`, or its `token_use` is not `access`); an ID token says who has signed in, and is not to ask with"
    )]
    NoAccessToken,
    /// Its issuer's keys have not been read yet, so it cannot be verified.
    #[error("the issuer's keys cannot be had at the moment; ask again in a moment")]
    KeysUnavailable,
}

impl Rejection {
    /// The reason as a single word, for a metric's label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Critical => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Subject | Self::ReservedSubject => "subject",
            Self::NoAccessToken => "no_access_token",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

/// Verifies tokens of the configured issuers. Clones share the keys and the cache.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuers: Vec<TrustedIssuer>,
    audiences: Vec<String>,
    /// The permitted difference between clocks, in seconds.
    clock_skew: u64,
    verified: VerifiedTokens,
}

#[derive(Debug)]
struct TrustedIssuer {
    name: String,
    keys: KnownKeys,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audiences>,
    /// Seconds since 1970, possibly with a fraction (RFC 7519, section 2: NumericDate).
    exp: Option<f64>,
    nbf: Option<f64>,
    scope: Option<String>,
    /// The kind of the token, which some issuers write into it: `access`, `id`.
    token_use: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Audiences {
    fn include(&self, expected: &[String]) -> bool {
        match self {
            Self::One(audience) => expected.contains(audience),
            Self::Many(audiences) => audiences.iter().any(|audience| expected.contains(audience)),
        }
    }
}

impl Verifier {
    /// Starts a verifier for these issuers.
    ///
    /// Subjects of the first issuer stay as they are. Those of the others become `ISSUER|SUBJECT`, so they are never a
    /// customer's id.
    ///
    /// Keys in files are read at once, others when they become available. Until then tokens are refused with
    /// [`Rejection::KeysUnavailable`]. Keys are read again every five minutes until `stop`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or contains no keys: waiting would not repair that.
    pub async fn start(
        issuers: Vec<Issuer>,
        audiences: Vec<String>,
        clock_skew: Duration,
        stop: CancellationToken,
    ) -> Result<Self, SourceError> {
        let verifier = Self(Arc::new(Inner {
            issuers: issuers
                .into_iter()
                .map(|issuer| TrustedIssuer {
                    name: issuer.name,
                    keys: KnownKeys::new(issuer.keys),
                })
                .collect(),
            audiences,
            clock_skew: clock_skew.as_secs(),
            verified: VerifiedTokens::default(),
        }));
        for issuer in &verifier.0.issuers {
            match issuer.keys.load().await {
                Err(error @ (SourceError::File { .. } | SourceError::KeySet { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, "an issuer's keys could not be read; it is tried again")
                }
                Ok(_) => {}
            }
        }
        tokio::spawn(reload(verifier.clone(), stop));
        Ok(verifier)
    }

    /// Verifies a token now.
    ///
    /// # Errors
    ///
    /// [`Rejection`] says why it is not accepted.
    pub async fn verify_now(&self, token: &str) -> Result<Principal, Rejection> {
        self.verify(token, seconds_since_1970()).await
    }

    /// The bearer of a token that was verified before and is still valid. This costs one look-up.
    #[must_use]
    pub fn remembered(&self, token: &str) -> Option<Principal> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let verified = self.0.verified.get(&VerifiedTokens::digest(token))?;
        if !self.is_current(&verified) {
            return None;
        }
        let verified = self.0.in_time(verified, seconds_since_1970()).ok()?;
        Some(verified.principal)
    }

    /// Until when tokens of this principal are accepted, in seconds since 1970: the claim `exp` plus the permitted
    /// difference between clocks.
    #[must_use]
    pub fn good_until(&self, principal: &Principal) -> u64 {
        principal.expires_at.saturating_add(self.0.clock_skew)
    }

    /// Verifies a token at this time (seconds since 1970).
    ///
    /// # Errors
    ///
    /// [`Rejection`] says why it is not accepted.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Principal, Rejection> {
        if token.len() > MAX_TOKEN {
            return Err(Rejection::Malformed);
        }
        let digest = VerifiedTokens::digest(token);
        if let Some(verified) = self.0.verified.get(&digest)
            && self.is_current(&verified)
        {
            return self
                .0
                .in_time(verified, now)
                .map(|verified| verified.principal);
        }
        let verified = self.0.in_time(self.check(token).await?, now)?;
        self.0.verified.put(digest, verified.clone());
        Ok(verified.principal)
    }

    /// Whether the keys are still those with which the token was verified.
    fn is_current(&self, verified: &Verified) -> bool {
        self.0
            .issuers
            .get(verified.issuer)
            .and_then(|issuer| issuer.keys.known())
            .is_some_and(|known| known.generation == verified.generation)
    }

    /// Checks everything except the times.
    async fn check(&self, token: &str) -> Result<Verified, Rejection> {
        let header = decode_header(token).map_err(|_| Rejection::Malformed)?;
        if header.crit.is_some() {
            return Err(Rejection::Critical);
        }
        if !has_access_type(&header) {
            return Err(Rejection::NoAccessToken);
        }
        let (index, issuer) = self.issuer_of(token)?;
        let id = header.kid.as_deref();
        let (known, key) = issuer.key(id).await?;
        let claims = verified_claims(token, &key)?;
        // Before the signature was verified, the claims were only read to find the issuer. So the issuer is compared
        // again.
        if claims.iss.as_deref() != Some(issuer.name.as_str()) {
            return Err(Rejection::Issuer);
        }
        if !claims
            .aud
            .as_ref()
            .is_some_and(|aud| aud.include(&self.0.audiences))
        {
            return Err(Rejection::Audience);
        }
        if claims.token_use.is_some_and(|kind| kind != "access") {
            return Err(Rejection::NoAccessToken);
        }
        let subject = claims.sub.ok_or(Rejection::Subject)?;
        let names = self.0.issuers.iter().map(|issuer| issuer.name.as_str());
        let subject = subject::named(&subject, index, names).map_err(|reason| match reason {
            NoSubject::Unfit => Rejection::Subject,
            NoSubject::Reserved => Rejection::ReservedSubject,
        })?;
        Ok(Verified {
            principal: Principal {
                subject,
                scopes: Scopes::of_claim(claims.scope.as_deref().unwrap_or_default()),
                expires_at: claims.exp.and_then(seconds).ok_or(Rejection::Expired)?,
            },
            not_before: claims.nbf.and_then(seconds),
            issuer: index,
            generation: known.generation,
        })
    }

    fn issuer_of(&self, token: &str) -> Result<(usize, &TrustedIssuer), Rejection> {
        let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| Rejection::Malformed)?;
        self.0
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| claims.iss.as_deref() == Some(issuer.name.as_str()))
            .ok_or(Rejection::Issuer)
    }
}

impl Inner {
    fn in_time(&self, verified: Verified, now: u64) -> Result<Verified, Rejection> {
        if verified
            .principal
            .expires_at
            .saturating_add(self.clock_skew)
            <= now
        {
            return Err(Rejection::Expired);
        }
        if verified
            .not_before
            .is_some_and(|from| from > now.saturating_add(self.clock_skew))
        {
            return Err(Rejection::NotYetValid);
        }
        Ok(verified)
    }
}

impl TrustedIssuer {
    /// The key with that id. If it is not known, the source is read again.
    async fn key(&self, id: Option<&str>) -> Result<(Known, VerificationKey), Rejection> {
        let found = |known: Option<Known>| {
            let known = known?;
            let key = known.keys.find(id).cloned()?;
            Some((known, key))
        };
        let known = self.keys.known();
        if let Some(found) = found(known.clone()) {
            return Ok(found);
        }
        let refreshed = self.keys.refresh(known.map(|known| known.generation)).await;
        let is_known = refreshed.is_some();
        found(refreshed).ok_or(if is_known {
            Rejection::UnknownKey
        } else {
            Rejection::KeysUnavailable
        })
    }
}

fn verified_claims(token: &str, key: &VerificationKey) -> Result<Claims, Rejection> {
    let mut validation = Validation::default();
    validation.algorithms.clone_from(&key.algorithms);
    // The verifier checks these itself, at a given time and with its own messages.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    decode::<Claims>(token, &key.key, &validation)
        .map(|decoded| decoded.claims)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Rejection::Algorithm,
            ErrorKind::InvalidSignature => Rejection::Signature,
            _ => Rejection::Malformed,
        })
}

/// Whether the header is that of an access token. Most issuers do not state the type. The media type may be written
/// without `application/` (RFC 7515, section 4.1.9).
fn has_access_type(header: &Header) -> bool {
    let Some(given) = &header.typ else {
        return true;
    };
    let given = given.to_ascii_lowercase();
    let kind = given.strip_prefix("application/").unwrap_or(&given);
    matches!(kind, "jwt" | "at+jwt")
}

/// The whole seconds of a NumericDate; `None` if it is not a valid time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn seconds(date: f64) -> Option<u64> {
    // `as` saturates, and the year 10,000 is late enough.
    (date.is_finite() && date >= 0.0).then(|| (date as u64).min(253_402_300_799))
}

/// Reads all keys again at intervals.
#[expect(clippy::disallowed_methods, reason = "issuers are real servers")]
async fn reload(verifier: Verifier, stop: CancellationToken) {
    loop {
        // The jitter spreads the requests of instances that were started together.
        let pause = RELOAD_INTERVAL.mul_f64(rand::rng().random_range(0.8..1.2));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        for issuer in &verifier.0.issuers {
            if let Err(error) = issuer.keys.load().await {
                metrics::counter!("auth_key_reload_failures_total").increment(1);
                tracing::warn!(source = %issuer.keys.source(), %error, "an issuer's keys could not be read again; the known ones stay");
            }
        }
    }
}

#[cfg(test)]
mod tests;
