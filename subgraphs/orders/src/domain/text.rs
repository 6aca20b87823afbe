//! The one rule that all texts of an order share: there, and not longer than what it is for.

use tandem_model::printable::unprintable;

use super::error::OrderError;

/// A text that must be there: 1 to `limit` characters, not blank, printable.
pub(super) fn required(field: &str, text: &str, limit: usize) -> Result<(), OrderError> {
    if text.trim().is_empty() {
        return Err(OrderError::invalid(
            field,
            format!("is empty; expected 1 to {limit} characters"),
        ));
    }
    bounded(field, text, limit)
}

/// A text of at most `limit` characters; printable, on several lines and with tabs.
pub(super) fn bounded(field: &str, text: &str, limit: usize) -> Result<(), OrderError> {
    let length = text.chars().count();
    if length > limit {
        return Err(OrderError::invalid(
            field,
            format!("has {length} characters; expected at most {limit}"),
        ));
    }
    let is_space = |character: char| matches!(character, '\n' | '\r' | '\t');
    if let Some((_, found)) = unprintable(text).find(|(_, found)| !is_space(*found)) {
        return Err(OrderError::invalid(
            field,
            format!("holds the character {found:?}, which is not shown; expected plain text"),
        ));
    }
    Ok(())
}
