//! The one place that asks for the time: tokens are compared with it.
#![expect(clippy::disallowed_methods, reason = "tokens go by the time of day")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as tokens count (RFC 7519, section 2: NumericDate). Before 1970 it is 0: then every token is still to come.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
