//! The rules that every message about a change of an aggregate must keep. All readers judge messages here, so no
//! service refuses a message that another one accepts.

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

/// Checks that a message keeps the rules:
///
/// * The event has the given kind.
/// * `id`, which comes from the body, is a valid id.
/// * The message's key and the event's subject equal `id`, where they are present.
/// * `revision` is 1 or more.
///
/// # Errors
/// Names the broken rule and what was expected.
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
