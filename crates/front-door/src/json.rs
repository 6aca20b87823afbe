//! Checks of JSON before it is parsed.
//!
//! Nesting is checked because parsers recurse and the stack is finite. Escapes that encode no character are checked
//! because parsers treat them differently.

/// JSON that nests deeper than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("JSON may nest {limit} levels deep")]
pub struct TooDeep {
    /// The most levels that are accepted.
    pub limit: usize,
}

/// An escape that encodes no character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the escape at byte {at} names no character: `\\u` and four hexadecimal digits, and both halves of a surrogate pair, such as \\uD83D\\uDE00"
)]
pub(crate) struct BrokenEscape {
    /// The index of its first byte.
    at: usize,
}

/// Checks that every `\u` encodes a character (RFC 8259, sections 7 and 8.2). Half of a surrogate pair alone does not.
/// A parser that skips a member accepts it, and one that reads the member refuses it.
///
/// # Errors
/// The place of the first escape that encodes no character.
pub(crate) fn check_escapes(text: &[u8]) -> Result<(), BrokenEscape> {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\\', text.get(at..).unwrap_or_default()) {
        at += next;
        at += match unit(text, at) {
            // Any other escape has two bytes.
            None if text.get(at + 1) != Some(&b'u') => 2,
            Some(0xD800..=0xDBFF) => match unit(text, at + UNIT) {
                Some(0xDC00..=0xDFFF) => 2 * UNIT,
                _ => return Err(BrokenEscape { at }),
            },
            None | Some(0xDC00..=0xDFFF) => return Err(BrokenEscape { at }),
            Some(_) => UNIT,
        };
    }
    Ok(())
}

/// The length of an escape such as `\u005b`, in bytes.
const UNIT: usize = 6;

/// The code unit of the escape at this index.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + UNIT)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// Checks how many arrays and objects are open at once. Invalid JSON is left to the parser. This check also bounds the
/// parser's recursion: no parser descends further than brackets are open outside strings.
///
/// # Errors
/// When more than `limit` are open.
pub fn check_depth(text: &[u8], limit: usize) -> Result<(), TooDeep> {
    let mut depth = 0_usize;
    for byte in outside_strings(text) {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Err(TooDeep { limit });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Counts the values of a text by the commas outside strings. Each parsed value takes many times its two bytes.
pub(crate) fn count_values(text: &[u8]) -> usize {
    1 + outside_strings(text).filter(|byte| *byte == b',').count()
}

/// The bytes of a text outside strings, without the quotes. A string without an end reaches to the end of the text.
fn outside_strings(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut bytes = text.iter().copied();
    std::iter::from_fn(move || {
        loop {
            let byte = bytes.next()?;
            if byte != b'"' {
                return Some(byte);
            }
            while let Some(inside) = bytes.next() {
                match inside {
                    b'\\' => {
                        bytes.next();
                    }
                    b'"' => break,
                    _ => {}
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_by_what_stands_between_them() {
        for (text, values) in [
            (&b"{}"[..], 1),
            (b"[1,2,3]", 3),
            (br#"{"a":",,,\",,","b":[1,2]}"#, 3),
            (br#"",,,"#, 1),
        ] {
            assert_eq!(count_values(text), values);
        }
    }

    fn nested(open: &str, close: &str, levels: usize) -> String {
        format!("{}1{}", open.repeat(levels), close.repeat(levels))
    }

    #[test]
    fn an_escape_names_a_character_or_is_refused_where_it_stands() {
        for good in [
            r#"{"a":"\u005b\uD83D\uDE00\ud83d\ude00\n\\\"é"}"#,
            r#"["\\ud83d", "\\\\uD83D"]"#,
            "{}",
            "",
        ] {
            assert_eq!(check_escapes(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, at) in [
            (r#"["\uD83D"]"#, 2),
            (r#"["\uDE00"]"#, 2),
            (r#"["a\uDE00\uD83D"]"#, 3),
            (r#"["\uD83D\n"]"#, 2),
            (r#"["\uD83D\u0041"]"#, 2),
            (r#"["\u00g0"]"#, 2),
            (r#"["\u+041"]"#, 2),
            (r#"["\\\u12"#, 4),
        ] {
            assert_eq!(
                check_escapes(bad.as_bytes()),
                Err(BrokenEscape { at }),
                "{bad}"
            );
        }
    }

    #[test]
    fn arrays_objects_and_both_in_turn_are_counted() {
        for (open, close, each) in [("[", "]", 1), ("{\"a\":", "}", 1), ("[{\"a\":", "}]", 2)] {
            assert_eq!(
                check_depth(nested(open, close, 8 / each).as_bytes(), 8),
                Ok(())
            );
            assert!(check_depth(nested(open, close, 9).as_bytes(), 8).is_err());
        }
    }

    #[test]
    fn brackets_in_strings_do_not_count_whatever_escapes_stand_before_them() {
        for text in [
            r#"["[[[[[[["]"#,
            r#"["\"[[[[[["]"#,
            r#"["\\", "[[[[["]"#,
            r#"{"[[[[":"\u005b[[["}"#,
        ] {
            assert_eq!(check_depth(text.as_bytes(), 1), Ok(()), "{text}");
        }
        assert!(check_depth(br#"["\\",[[["#, 3).is_err());
    }

    #[test]
    fn siblings_are_not_nested_and_what_is_broken_off_still_counts() {
        assert_eq!(
            check_depth("[[1],[2],[3]]".repeat(50).as_bytes(), 2),
            Ok(())
        );
        assert!(check_depth("[".repeat(1_000_000).as_bytes(), 32).is_err());
        assert_eq!(check_depth(b"\"abc", 1), Ok(()));
    }
}
