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

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How often keys are read again without being asked for, so that one that an issuer withdrew is not good for ever.
const RELOAD_INTERVAL: Duration = Duration::from_secs(300);

/// Why a token is not taken. What it says may be sent to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is not a token at all.
    #[error("this is no JSON Web Token of up to {MAX_TOKEN} bytes with a known `alg`")]
    Malformed,
    /// It names a key that the issuer does not publish.
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The key does not allow this algorithm.
    #[error("the token names an algorithm that is not the one of its key")]
    Algorithm,
    /// The signature is of another key or another text.
    #[error("the token's signature is not right")]
    Signature,
    /// It asks for something to be understood that is not known here (RFC 7515, section 4.1.11).
    #[error("the token's header has `crit`, which is not understood here")]
    Critical,
    /// It is from somebody else.
    #[error("the token's issuer (`iss`) is not one that is trusted here")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is not meant for this service (`aud`)")]
    Audience,
    /// It was good once.
    #[error("the token has expired (`exp`); ask its issuer for a new one")]
    Expired,
    /// It will be good.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// It speaks for nobody.
    #[error("the token has no subject (`sub`) of 1 to {MAX_SUBJECT} printable characters")]
    Subject,
    /// It speaks for somebody whom its issuer does not name.
    #[error(
        "the token's subject (`sub`) is reserved: `anonymous` and `legacy-rest` are callers without a token, and what begins with the name of another issuer is that issuer's"
    )]
    ReservedSubject,
    /// It was made for something else than to ask with (RFC 8725, section 3.11; RFC 9068, section 4).
    #[error(
        "this is no access token (its `typ` is neither `JWT` nor `at+jwt`, or its `token_use` is not `access`); an ID token says who has signed in, and is not to ask with"
    )]
    NoAccessToken,
    /// Its issuer's keys have not been had yet: whether it is good is not known.
    #[error("the issuer's keys cannot be had at the moment; ask again in a moment")]
    KeysUnavailable,
}

impl Rejection {
    /// The reason in a word, as a metric's label has it.
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

/// Verifies tokens of the configured issuers. Clones share keys and memory.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuers: Vec<TrustedIssuer>,
    audiences: Vec<String>,
    /// By how much clocks may differ, in seconds.
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
    /// What some issuers write into their tokens to tell their kinds apart: `access`, `id`.
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
    /// A verifier of these issuers. The subjects of the first are as it names them; those of the others have their issuer before them,
    /// `ISSUER|SUBJECT`, and so are never a customer's id. Keys in files are read at once, others when they can be had: until then
    /// tokens are answered with [`Rejection::KeysUnavailable`]. Keys are read again every five minutes until `stop`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or holds no keys: that does not mend itself.
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
    /// [`Rejection`] says why it is not taken.
    pub async fn verify_now(&self, token: &str) -> Result<Principal, Rejection> {
        self.verify(token, seconds_since_1970()).await
    }

    /// The bearer of a token that was verified before and is still good: that costs a look-up.
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

    /// Until when tokens of this principal are taken, in seconds since 1970: the claim `exp`, and by how much clocks may differ.
    #[must_use]
    pub fn good_until(&self, principal: &Principal) -> u64 {
        principal.expires_at.saturating_add(self.0.clock_skew)
    }

    /// Verifies a token at this instant (seconds since 1970).
    ///
    /// # Errors
    ///
    /// [`Rejection`] says why it is not taken.
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

    /// Whether the keys are still those that it was verified with.
    fn is_current(&self, verified: &Verified) -> bool {
        self.0
            .issuers
            .get(verified.issuer)
            .and_then(|issuer| issuer.keys.known())
            .is_some_and(|known| known.generation == verified.generation)
    }

    /// Everything but the times.
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
        // The claims were read before the signature was known to be right only to find the issuer: compare once more.
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
    /// The key of that id; the source is read again where it is not known.
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
    // These are checked above, against an instant that is given and with words of our own.
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

/// Whether the header names no other kind of token. Most issuers name none; the media type may be written without `application/`
/// (RFC 7515, section 4.1.9).
fn has_access_type(header: &Header) -> bool {
    let Some(given) = &header.typ else {
        return true;
    };
    let given = given.to_ascii_lowercase();
    let kind = given.strip_prefix("application/").unwrap_or(&given);
    matches!(kind, "jwt" | "at+jwt")
}

/// Whole seconds of a NumericDate; none for what is no instant.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn seconds(date: f64) -> Option<u64> {
    // `as` saturates, and the year 10,000 is far enough.
    (date.is_finite() && date >= 0.0).then(|| (date as u64).min(253_402_300_799))
}

/// Reads all keys again from time to time.
#[expect(clippy::disallowed_methods, reason = "issuers are real servers")]
async fn reload(verifier: Verifier, stop: CancellationToken) {
    loop {
        // Instances that were started together do not ask together.
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
