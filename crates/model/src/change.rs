//! The rules that every message about a change of an aggregate must keep, for all of its readers: the one place that judges it, so that
//! no service refuses what another accepts.

use crate::{
    event::ReceivedEvent,
    message::{Message, Rejection},
};

/// Whether a text can be the id of an aggregate: 1 to 64 characters of `A-Z a-z 0-9 _ -`.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Holds a message to the rules: it is of this kind, its key (if it has one) and its event's subject (if it has one) are the
/// body's `id`, which is one, and its `revision` is 1 or more.
///
/// # Errors
/// Names what breaks a rule, and what would be right.
pub fn judge(
    message: &Message,
    event: &ReceivedEvent,
    kind: &str,
    id: &str,
    revision: i64,
) -> Result<(), Rejection> {
    if event.kind != kind {
        return Err(Rejection::new(format!(
            "ce_type is {}; expected {kind}",
            event.kind
        )));
    }
    if !is_id(id) {
        return Err(Rejection::new(
            "the body's id is not 1 to 64 characters of A-Z a-z 0-9 _ -",
        ));
    }
    let key = message.key.as_deref().filter(|key| !key.is_empty());
    if key.is_some_and(|key| key != id) {
        return Err(Rejection::new(format!(
            "the message's key is {:?}, but the body's id is {id:?}; expected the same, or no key",
            message.key.as_deref().unwrap_or_default()
        )));
    }
    if let Some(subject) = event.subject.as_deref().filter(|subject| *subject != id) {
        return Err(Rejection::new(format!(
            "ce_subject is {subject:?}, but the body's id is {id:?}; expected the same, or none"
        )));
    }
    if revision < 1 {
        return Err(Rejection::new(format!(
            "the body's revision is {revision}; expected 1 or more"
        )));
    }
    Ok(())
}
