//! Counts the tokens of a document and its nesting before anything parses it.
//!
//! A parser builds a tree, and an error for each place that it does not understand. A document that is too large or
//! nests too deep is refused here, at the cost of scanning its bytes.

use super::document_limits::DocumentLimits;
use super::error::RequestError;

/// Counts the tokens of a document (GraphQL, section Lexical Tokens), up to its limits. A byte that belongs to no token
/// counts as one. The parser reports it.
///
/// # Errors
/// When there are more tokens than the limit, or braces and brackets nest deeper.
pub(super) fn count(document: &str, limits: &DocumentLimits) -> Result<usize, RequestError> {
    let mut rest = document.as_bytes();
    let (mut tokens, mut depth) = (0, 0_usize);
    while let [first, behind @ ..] = rest {
        rest = match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                rest = behind;
                continue;
            }
            // A byte order mark may stand wherever white space may.
            0xEF if behind.starts_with(&[0xBB, 0xBF]) => {
                rest = after(behind, 2);
                continue;
            }
            b'#' => {
                rest = after(behind, run(behind, |byte| !matches!(byte, b'\n' | b'\r')));
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                behind
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                behind
            }
            b'"' => match behind {
                [b'"', b'"', block @ ..] => after_block_string(block),
                _ => after_string(behind),
            },
            b'.' => behind.strip_prefix(b"..").unwrap_or(behind),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => after(behind, run(behind, is_of_a_name)),
            b'-' | b'0'..=b'9' => after_number(behind),
            _ => behind,
        };
        tokens += 1;
        let DocumentLimits {
            tokens: most,
            recursion,
            ..
        } = limits;
        if tokens > *most {
            return Err(too_many(*most));
        }
        if depth > *recursion {
            return Err(too_deep(*recursion));
        }
    }
    Ok(tokens)
}

/// The error for a document with more than `most` tokens.
pub(super) fn too_many(most: usize) -> RequestError {
    let message = format!("the document has more than the {most} tokens that are taken");
    RequestError::limit(message, None)
}

/// The error for a document that nests deeper than `most` levels.
pub(super) fn too_deep(most: usize) -> RequestError {
    let message = format!("the document nests more than the {most} levels that are taken");
    RequestError::limit(message, None)
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn run(bytes: &[u8], is_inside: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| !is_inside(*byte));
    end.unwrap_or(bytes.len())
}

fn after(bytes: &[u8], count: usize) -> &[u8] {
    bytes.get(count..).unwrap_or_default()
}

/// The bytes after a number, or after something that starts like one.
fn after_number(mut inside: &[u8]) -> &[u8] {
    loop {
        let length = run(inside, is_of_a_name);
        let is_exponent = matches!(inside.get(..length), Some([.., b'e' | b'E']));
        inside = match after(inside, length) {
            [b'+' | b'-', behind @ ..] if is_exponent => behind,
            [b'.', behind @ ..] if matches!(behind, [b'0'..=b'9', ..]) => behind,
            behind => return behind,
        };
    }
}

/// The bytes after the end of a string, or after the end of the line if the string is not terminated.
fn after_string(mut inside: &[u8]) -> &[u8] {
    loop {
        let length = run(inside, |byte| !matches!(byte, b'"' | b'\\' | b'\n' | b'\r'));
        match after(inside, length) {
            [b'"', behind @ ..] => return behind,
            [b'\\', behind @ ..] => inside = after(behind, 1),
            other => return other,
        }
    }
}

fn after_block_string(mut inside: &[u8]) -> &[u8] {
    loop {
        let length = run(inside, |byte| !matches!(byte, b'"' | b'\\'));
        match after(inside, length) {
            [b'"', b'"', b'"', behind @ ..] => return behind,
            [b'\\', b'"', b'"', b'"', behind @ ..] | [_, behind @ ..] => inside = behind,
            [] => return &[],
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: DocumentLimits = DocumentLimits {
        tokens: 20,
        recursion: 4,
        depth: 15,
        fields: 5_000,
        cost: 50_000,
    };

    #[test]
    fn tokens_are_counted_as_the_specification_has_them() {
        for (document, tokens) in [
            ("", 0),
            ("{a}", 3),
            ("\u{feff}{ a , b }", 4),
            ("{a # {{{{{{ \n}", 3),
            ("query Q($n:[Int!]=-1.5e+3){a}", 16),
            ("{...f ...on T@x{a}}", 12),
            ("{a...f...f}", 7),
            ("[1 -2.5,3e5 4.0E-7]", 6),
            ("1-2...f", 4),
            (r#"{a(b:"{{{{{ \" {{{{{{")}"#, 8),
            (r#"{a(b:"""{{{{{ \""" " "" {{{{""")}"#, 8),
            ("{a(b:\"never ends\n)}", 8),
            ("{a(b:\"\"\"never ends)}", 6),
            ("\u{1}é", 3),
            ("\"", 1),
            ("\"\\", 1),
        ] {
            assert_eq!(count(document, &LIMITS).unwrap(), tokens, "{document:?}");
        }
    }

    #[test]
    fn what_is_larger_or_deeper_than_what_is_taken_is_refused() {
        let words = |count: usize| "a ".repeat(count);
        assert_eq!(count(&words(20), &LIMITS).unwrap(), 20);
        let error = count(&words(21), &LIMITS).unwrap_err();
        assert!(error.message().contains("20 tokens"), "{}", error.message());
        for (open, close) in [("{a", "}"), ("[", "]")] {
            let nested = |levels: usize| format!("{}{}", open.repeat(levels), close.repeat(levels));
            assert!(count(&nested(4), &LIMITS).is_ok());
            let error = count(&nested(5), &LIMITS).unwrap_err();
            assert!(error.message().contains("4 levels"), "{}", error.message());
        }
        assert!(count("{a}{a}{a}{a}{a}{a}", &LIMITS).is_ok());
    }
}
