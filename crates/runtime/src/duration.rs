//! Durations as settings write them: `500ms`, `10s`, `5m`, `24h`.

use std::time::Duration;

/// Reads a duration such as `500ms`, `10s`, `5m`, `24h`.
///
/// # Errors
///
/// A message that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let complaint = || {
        format!("`{text}` is no duration; write a whole number and a unit: 500ms, 10s, 5m or 24h")
    };
    let split = text
        .find(|character: char| !character.is_ascii_digit())
        .ok_or_else(complaint)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| complaint())?;
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(complaint()),
    };
    number
        .checked_mul(millis_per_unit)
        .map(Duration::from_millis)
        .ok_or_else(complaint)
}

/// Reads a time limit: a duration above zero, because nothing can be done in no time.
///
/// # Errors
///
/// A message that says what is wrong with the text.
pub fn parse_time_limit(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => {
            Err("nothing can be done within no time; write for example 10s".to_owned())
        }
        limit => Ok(limit),
    }
}
