//! The cost of checking a document that is not in the cache. A large one is charged to its client and checked on
//! another thread.

use crate::http::admission::cost_of_bytes;

/// This many tokens are included in the cost of every request.
const LIGHT: usize = 250;
/// This many more tokens cost as much as one request. They are parsed, validated and rewritten, and then planned by the
/// inner server.
const TOKENS_OF_A_REQUEST: usize = 5;
/// A document with more tokens, or more bytes than `LONG`, takes long to check.
const TAKES_LONG: usize = 500;
const LONG: usize = 16 * 1_024;

/// How expensive it is to check a document that is not in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) tokens: usize,
    pub(super) bytes: usize,
}

impl Weight {
    /// The cost of the check in addition to its request, in requests.
    pub(super) fn cost(self) -> u32 {
        let tokens = self.tokens.saturating_sub(LIGHT) / TOKENS_OF_A_REQUEST;
        u32::try_from(tokens)
            .unwrap_or(u32::MAX)
            .saturating_add(cost_of_bytes(self.bytes))
    }

    /// Whether the check would block a thread for too long.
    pub(super) fn takes_long(self) -> bool {
        self.tokens > TAKES_LONG || self.bytes > LONG
    }
}
