//! The source of an issuer's keys and their cache. If a token names an unknown key, the source is read again, at a
//! bounded rate.
#![expect(clippy::disallowed_methods, reason = "issuers are real servers")]

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::key_set::{KeySet, KeySetError, MAX_DOCUMENT};

/// The shortest time between two reads that unknown keys cause.
const LEAST_INTERVAL: Duration = Duration::from_secs(10);
/// How long one read may take.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Where a JSON Web Key Set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A URL: `https`, or `http` on this machine.
    Url(reqwest::Url),
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The text is a URL that must not be used.
    #[error(
        "{0}: keys that come over plain http from another machine could be anybody's; use https"
    )]
    Insecure(reqwest::Url),
    /// The text is not a URL.
    #[error("{0} is neither a file nor an address that begins with https://")]
    NoAddress(String),
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The URL does not return a document.
    #[error("{url} cannot be read: {reason}")]
    Url {
        /// The URL.
        url: reqwest::Url,
        /// The reason.
        reason: String,
    },
    /// The document is not a usable key set.
    #[error("{from}: {source}")]
    KeySet {
        /// The file or the URL.
        from: String,
        /// What is wrong with the document.
        source: KeySetError,
    },
}

impl FromStr for KeySource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url: reqwest::Url = text
            .parse()
            .map_err(|_| SourceError::NoAddress(text.to_owned()))?;
        let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if is_here => Ok(Self::Url(url)),
            "http" => Err(SourceError::Insecure(url)),
            _ => Err(SourceError::NoAddress(text.to_owned())),
        }
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Url(url) => url.fmt(formatter),
        }
    }
}

impl KeySource {
    /// Reads the keys. A URL must answer within 5 seconds, and the document may have at most 256 KiB.
    ///
    /// # Errors
    ///
    /// [`SourceError`] says which source failed and why.
    pub async fn read(&self) -> Result<KeySet, SourceError> {
        self.parsed(&self.document().await?)
    }

    async fn document(&self) -> Result<Vec<u8>, SourceError> {
        match self {
            Self::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| SourceError::File {
                    path: path.clone(),
                    source,
                }),
            Self::Url(url) => fetch(url).await.map_err(|reason| SourceError::Url {
                url: url.clone(),
                reason,
            }),
        }
    }

    fn parsed(&self, document: &[u8]) -> Result<KeySet, SourceError> {
        KeySet::parse(document).map_err(|source| SourceError::KeySet {
            from: self.to_string(),
            source,
        })
    }
}

async fn fetch(url: &reqwest::Url) -> Result<Vec<u8>, String> {
    let client = reqwest::Client::builder()
        .timeout(READ_LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| reason(&error))?;
    let mut response = client
        .get(url.clone())
        .header("accept", "application/jwk-set+json, application/json")
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| reason(&error))?;
    let mut document = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| reason(&error))? {
        if document.len() + part.len() > MAX_DOCUMENT {
            return Err(format!("the answer has more than {MAX_DOCUMENT} bytes"));
        }
        document.extend_from_slice(&part);
    }
    Ok(document)
}

/// The innermost cause. The outer ones only say that a request failed.
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The keys of one issuer as they were last read. They stay while the source is not available.
#[derive(Debug)]
pub(crate) struct KnownKeys {
    source: KeySource,
    known: RwLock<Option<Known>>,
    /// When an unknown key last caused a read. The lock is held during that read, so that concurrent callers cause one
    /// request and only one of them waits for it.
    asked: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) keys: Arc<KeySet>,
    /// The digest of the document with these keys.
    digest: [u8; 32],
    /// Grows with each document that differs from the one before. Tokens that were verified with an older one are
    /// verified again.
    pub(crate) generation: u64,
}

impl KnownKeys {
    pub(crate) fn new(source: KeySource) -> Self {
        Self {
            source,
            known: RwLock::new(None),
            asked: Mutex::new(None),
        }
    }

    pub(crate) fn source(&self) -> &KeySource {
        &self.source
    }

    /// The keys of the last successful read.
    pub(crate) fn known(&self) -> Option<Known> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the source again, unless it was read less than [`LEAST_INTERVAL`] ago.
    ///
    /// `seen` is the generation that lacked the caller's key. If another caller has read a newer one meanwhile, that
    /// one is returned. [`None`] if no keys are known, or if another caller is still reading: a source that hangs must
    /// not block all callers, so they are told to try again.
    pub(crate) async fn refresh(&self, seen: Option<u64>) -> Option<Known> {
        let Ok(mut asked) = self.asked.try_lock() else {
            return self.known().filter(|known| Some(known.generation) != seen);
        };
        let known = self.known();
        let newer = known.as_ref().map(|known| known.generation) != seen;
        let too_soon = asked.is_some_and(|at| at.elapsed() < LEAST_INTERVAL);
        if newer || too_soon {
            return known;
        }
        *asked = Some(Instant::now());
        match self.load().await {
            Ok(known) => Some(known),
            Err(error) => {
                metrics::counter!("auth_key_reload_failures_total").increment(1);
                tracing::warn!(%error, kept = known.is_some(), "an issuer's keys could not be read");
                known
            }
        }
    }

    /// Reads the source now. If the document is the same, the generation stays: a token with an unknown key must not
    /// cause all other tokens to be verified again.
    pub(crate) async fn load(&self) -> Result<Known, SourceError> {
        let document = self.source.document().await?;
        let digest: [u8; 32] = Sha256::digest(&document).into();
        if let Some(same) = self.known().filter(|known| known.digest == digest) {
            return Ok(same);
        }
        let keys = Arc::new(self.source.parsed(&document)?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let next = Known {
            keys,
            digest,
            generation: known.as_ref().map_or(0, |known| known.generation + 1),
        };
        *known = Some(next.clone());
        tracing::info!(source = %self.source, keys = ?next.keys.ids(), "read an issuer's keys");
        Ok(next)
    }
}

/// An issuer whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The claim `iss`.
    pub name: String,
    /// Where its keys are.
    pub keys: KeySource,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn plain_http_is_taken_from_this_machine_alone() {
        assert!(matches!("keys.json".parse(), Ok(KeySource::File(_))));
        assert!(matches!(
            "https://id.example.org/keys".parse(),
            Ok(KeySource::Url(_))
        ));
        assert!(matches!(
            "http://127.0.0.1:1/keys".parse(),
            Ok(KeySource::Url(_))
        ));
        for insecure in [
            "http://id.example.org/keys",
            "http://127.0.0.1.example.org/keys",
        ] {
            assert!(matches!(
                insecure.parse::<KeySource>(),
                Err(SourceError::Insecure(_))
            ));
        }
        assert!(matches!(
            "ftp://x/".parse::<KeySource>(),
            Err(SourceError::NoAddress(_))
        ));
    }

    #[tokio::test]
    async fn a_source_that_is_away_says_why() {
        let error = KeySource::File("/nowhere/keys.json".into())
            .read()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/keys.json"), "{error}");
        // A port that is not listening any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let source: KeySource = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let error = source.read().await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
