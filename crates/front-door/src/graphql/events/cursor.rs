//! Extracts the cursor of an event while the event passes.
//!
//! Keeping the event instead, which is several times larger, would hold it in memory until the next one arrives.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The string at `data`, `root`, `key` of a response, if there is one. It reads nothing after it.
pub(super) fn cursor(response: &[u8], root: &str, key: &str) -> Option<Box<str>> {
    let mut found = None;
    let member = Member {
        path: &["data", root, key],
        found: &mut found,
    };
    // Deserializing also fails if the string was found: this is how reading stops early.
    let _ = member.deserialize(&mut serde_json::Deserializer::from_slice(response));
    found
}

/// The value at the end of a path.
struct Member<'a> {
    path: &'a [&'a str],
    found: &'a mut Option<Box<str>>,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text within objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { path, found } = self;
        let Some((name, path)) = path.split_first() else {
            return Err(A::Error::custom("no text"));
        };
        while let Some(member) = members.next_key::<&str>()? {
            if member == *name {
                let found = &mut *found;
                members.next_value_seed(Member { path, found })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.path.is_empty() {
            *self.found = Some(text.into());
        }
        Err(E::custom("found"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_of_an_event_is_its_own_and_none_of_what_stands_in_it() {
        for (response, expected) in [
            (r#"{"data":{"u":{"at":"5","order":{"at":"6"}}}}"#, Some("5")),
            (r#"{"data":{"u":{"order":{"at":"6"},"at":"5"}}}"#, Some("5")),
            (
                r#"{"errors":[{"at":"6"}],"data":{"u":{"x":[1,{}],"at":"a\"b"}}}"#,
                Some("a\"b"),
            ),
            (
                r#"{"data":{"u":{"at":"5"}},"extensions":{"a":{"u":{"at":"6"}}}}"#,
                Some("5"),
            ),
            (r#"{"data":{"u":{"order":{"at":"6"}}}}"#, None),
            (r#"{"data":{"u":{"at":null}}}"#, None),
            (r#"{"data":{"u":{"at":{"at":"6"}}}}"#, None),
            (r#"{"data":{"u":"at"}}"#, None),
            (r#"{"data":null,"errors":[]}"#, None),
            (r#"["data"]"#, None),
            ("", None),
        ] {
            let found = cursor(response.as_bytes(), "u", "at");
            assert_eq!(found.as_deref(), expected, "{response}");
        }
    }
}
