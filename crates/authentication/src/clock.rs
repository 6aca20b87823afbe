//! The only place that reads the clock: the times in tokens are compared with it.
#![expect(clippy::disallowed_methods, reason = "tokens go by the time of day")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as in tokens (RFC 7519, section 2: NumericDate). It is 0 if the clock is before 1970.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
