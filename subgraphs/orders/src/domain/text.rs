//! The one rule that all texts of an order share: there, and not longer than what it is for.

use super::error::OrderError;

/// A text that must be there: 1 to `limit` characters, not blank, no control characters.
pub(super) fn required(field: &str, text: &str, limit: usize) -> Result<(), OrderError> {
    if text.trim().is_empty() {
        return Err(OrderError::invalid(
            field,
            format!("is empty; expected 1 to {limit} characters"),
        ));
    }
    bounded(field, text, limit)
}

/// A text of at most `limit` characters; tabs and line breaks are the only control characters.
pub(super) fn bounded(field: &str, text: &str, limit: usize) -> Result<(), OrderError> {
    let length = text.chars().count();
    if length > limit {
        return Err(OrderError::invalid(
            field,
            format!("has {length} characters; expected at most {limit}"),
        ));
    }
    if let Some(found) = text
        .chars()
        .find(|char| char.is_control() && !matches!(char, '\n' | '\r' | '\t'))
    {
        return Err(OrderError::invalid(
            field,
            format!("holds the control character {found:?}; expected plain text"),
        ));
    }
    Ok(())
}
