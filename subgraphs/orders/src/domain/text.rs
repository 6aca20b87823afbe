//! The rules that all texts of an order share: a maximum length and printable characters.

use tandem_model::printable::unprintable;

use super::error::OrderError;

/// Checks a required text: 1 to `limit` characters, not blank, printable.
pub(super) fn required(field: &str, text: &str, limit: usize) -> Result<(), OrderError> {
    if text.trim().is_empty() {
        return Err(OrderError::invalid(
            field,
            format!("is empty; expected 1 to {limit} characters"),
        ));
    }
    bounded(field, text, limit)
}

/// Checks the length of a text, at most `limit` characters, and that it is printable. Line breaks and tabs are allowed.
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
