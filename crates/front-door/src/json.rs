//! The nesting of JSON, counted before anything parses it: parsers call themselves for each level, and a stack has an end.

/// JSON that nests deeper than what is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("JSON may nest {limit} levels deep")]
pub struct TooDeep {
    /// The most levels that are taken.
    pub limit: usize,
}

/// Counts arrays and objects that are open at once. What is no JSON is left to the parser, which this keeps from going
/// deeper than the limit: no parser descends further than brackets are open outside of strings.
///
/// # Errors
/// When more than `limit` are.
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

/// Counts the values of a text, by the commas outside of strings: what is read makes something of each, of many times its two bytes.
pub(crate) fn count_values(text: &[u8]) -> usize {
    1 + outside_strings(text).filter(|byte| *byte == b',').count()
}

/// The bytes of a text that are in no string, without the quotes around these. A string that does not end goes on to the end of the text.
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
