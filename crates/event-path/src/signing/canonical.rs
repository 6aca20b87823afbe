//! What is signed of a record: its canonical form, as a hash.
//!
//! The form is a sequence of parts. Each part is its length (8 bytes, big-endian) and its bytes. A missing part has the
//! length 2^64-1 and no bytes. The parts are, in this order:
//!
//! * the name of the topic without prefix
//! * the key
//! * the number of attributes (8 bytes)
//! * for each attribute, in order of name and value: the name in lower case, and the value
//! * the body
//!
//! The attributes are the headers that begin with `ce_`, and `content-type`. The signature itself is left out. So are
//! the attributes of the Distributed Tracing extension, which brokers and mirrors may set. The partition is left out
//! too, because it follows from the key.
//!
//! The hash is SHA-256 of a byte 0 and the form. The byte distinguishes a leaf from an inner node (RFC 6962, section
//! 2.1).

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use tandem_model::message::Message;

use super::SIGNATURE;
use crate::log::Record;

/// The hash of a record's canonical form.
pub type Leaf = [u8; 32];

/// Attributes that are not signed.
const UNSIGNED: [&str; 3] = [SIGNATURE, "ce_traceparent", "ce_tracestate"];
const LEAF: u8 = 0;
/// The length of a missing part.
const NOT_THERE: [u8; 8] = u64::MAX.to_be_bytes();
/// The approximate size of an event's form without its body.
const USUAL: usize = 768;

/// The hash of the signed parts of a record.
#[must_use]
pub fn leaf<'a>(
    topic: &str,
    key: Option<&str>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    payload: Option<&[u8]>,
) -> Leaf {
    let mut attributes: Vec<(Cow<'_, str>, &[u8])> = headers
        .map(|(name, value)| (lower_case(name), value))
        .filter(|(name, _)| {
            (name.starts_with("ce_") || name == "content-type") && !UNSIGNED.contains(&&**name)
        })
        .collect();
    attributes.sort_unstable();
    // Everything except the body is small, and cheaper to hash in one piece.
    let mut form = Vec::with_capacity(USUAL);
    form.push(LEAF);
    put(&mut form, topic.as_bytes());
    match key {
        Some(key) => put(&mut form, key.as_bytes()),
        None => form.extend(NOT_THERE),
    }
    put(&mut form, &(attributes.len() as u64).to_be_bytes());
    for (name, value) in &attributes {
        put(&mut form, name.as_bytes());
        put(&mut form, value);
    }
    form.extend(payload.map_or(NOT_THERE, length));
    let mut digest = Sha256::new_with_prefix(form);
    digest.update(payload.unwrap_or_default());
    digest.finalize().into()
}

/// The length of a part that exists.
fn length(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

fn put(form: &mut Vec<u8>, part: &[u8]) {
    form.extend(length(part));
    form.extend(part);
}

/// The signed form of a name. Brokers and clients may change its case, but rarely do.
fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The hash of a record that will be published.
pub(super) fn of_record(record: &Record<'_>) -> Leaf {
    let headers = record.headers.iter();
    leaf(
        record.topic,
        Some(record.key),
        headers.map(|(name, value)| (*name, &**value)),
        record.payload,
    )
}

/// The hash of a message that was read.
pub(super) fn of_message(message: &Message) -> Leaf {
    let headers = message.headers.iter();
    leaf(
        &message.topic,
        message.key.as_deref(),
        headers.map(|(name, value)| (&**name, &**value)),
        message.payload.as_deref(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &[u8])], payload: Option<&[u8]>) -> Leaf {
        leaf("topic", Some("1"), headers.iter().copied(), payload)
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let mut form = vec![0];
        let mut put = |part: Option<&[u8]>| {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            form.extend(length.to_be_bytes());
            form.extend(part.unwrap_or_default());
        };
        put(Some(b"topic"));
        put(Some(b"1"));
        put(Some(&2_u64.to_be_bytes()));
        for part in [
            b"ce_id".as_slice(),
            b"7",
            b"content-type",
            b"application/json",
        ] {
            put(Some(part));
        }
        put(None);
        let expected: Leaf = Sha256::digest(&form).into();
        let headers: [(&str, &[u8]); 5] = [
            ("Content-Type", b"application/json"),
            ("CE_ID", b"7"),
            (SIGNATURE, b"v1.x"),
            ("ce_traceparent", b"00"),
            ("x-mirror", b"east"),
        ];
        assert_eq!(of(&headers, None), expected);
    }

    #[test]
    fn no_part_can_be_changed_moved_or_taken_for_another() {
        let base = of(&[("ce_id", b"7")], Some(b"{}"));
        assert_ne!(base, of(&[("ce_id", b"8")], Some(b"{}")));
        assert_ne!(base, of(&[("ce_id", b"7")], None));
        assert_ne!(base, of(&[("ce_id", b"7")], Some(b"")));
        assert_ne!(base, of(&[], Some(b"{}")));
        assert_ne!(base, of(&[("ce_id", b"7"), ("ce_id", b"7")], Some(b"{}")));
        assert_ne!(
            base,
            leaf(
                "other",
                Some("1"),
                [("ce_id", b"7".as_slice())].into_iter(),
                Some(b"{}")
            )
        );
        assert_ne!(
            base,
            leaf(
                "topic",
                Some("2"),
                [("ce_id", b"7".as_slice())].into_iter(),
                Some(b"{}")
            )
        );
        assert_ne!(
            base,
            leaf(
                "topic",
                None,
                [("ce_id", b"7".as_slice())].into_iter(),
                Some(b"{}")
            )
        );
    }
}
