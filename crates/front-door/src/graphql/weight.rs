//! The cost of checking a document that is not in the cache: large ones are charged to their client and checked on a
//! thread of their own.

use crate::http::admission::cost_of_bytes;

/// So many tokens are part of what a request costs in any case.
const LIGHT: usize = 250;
/// So many more cost as much as a request: they are parsed, validated and written again, and then planned by what stands behind.
const TOKENS_OF_A_REQUEST: usize = 5;
/// What has more tokens, or more bytes, takes long to check.
const TAKES_LONG: usize = 500;
const LONG: usize = 16 * 1_024;

/// How much there is to check of a document that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) tokens: usize,
    pub(super) bytes: usize,
}

impl Weight {
    /// What checking it costs beside its request, in requests.
    pub(super) fn cost(self) -> u32 {
        let tokens = self.tokens.saturating_sub(LIGHT) / TOKENS_OF_A_REQUEST;
        u32::try_from(tokens)
            .unwrap_or(u32::MAX)
            .saturating_add(cost_of_bytes(self.bytes))
    }

    /// Whether it keeps a thread for longer than others should wait.
    pub(super) fn takes_long(self) -> bool {
        self.tokens > TAKES_LONG || self.bytes > LONG
    }
}
