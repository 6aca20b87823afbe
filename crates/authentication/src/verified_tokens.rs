//! A cache of verified tokens: verifying a signature takes up to a tenth of a millisecond, and clients send the same
//! token many times.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::principal::Principal;

/// How many tokens are cached. Each takes about 200 bytes.
const CAPACITY: NonZeroUsize = match NonZeroUsize::new(10_000) {
    Some(capacity) => capacity,
    None => NonZeroUsize::MIN,
};

/// The digest of a token. Tokens themselves are not kept in memory.
pub(crate) type TokenDigest = [u8; 32];

/// The result of a successful verification.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) principal: Principal,
    /// The claim `nbf`.
    pub(crate) not_before: Option<u64>,
    /// The index of the issuer, and the generation of its keys with which the token was verified.
    pub(crate) issuer: usize,
    pub(crate) generation: u64,
}

/// The cache. It contains only valid tokens, so that invalid ones cannot evict them.
#[derive(Debug)]
pub(crate) struct VerifiedTokens(Mutex<LruCache<TokenDigest, Verified>>);

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl VerifiedTokens {
    pub(crate) fn digest(token: &str) -> TokenDigest {
        Sha256::digest(token).into()
    }

    pub(crate) fn get(&self, digest: &TokenDigest) -> Option<Verified> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned()
    }

    pub(crate) fn put(&self, digest: TokenDigest, verified: Verified) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(digest, verified);
    }
}
