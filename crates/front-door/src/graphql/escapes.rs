//! Resolves Unicode escapes of strings in GraphQL documents (GraphQL, section String Value).
//!
//! The parsers of the inner server do not accept surrogate pairs and `\u{…}`, so these escapes are replaced by the
//! characters that they encode.

use std::borrow::Cow;

use super::error::{Location, RequestError};

/// Replaces the surrogate pairs and variable-width escapes of a document. Borrows the document if it has none.
///
/// # Errors
/// When half of a surrogate pair stands alone, or an escape encodes no character.
pub(super) fn resolve(document: &str) -> Result<Cow<'_, str>, RequestError> {
    if !document.contains("\\u{") && !document.contains("\\uD") && !document.contains("\\ud") {
        return Ok(Cow::Borrowed(document));
    }
    Scanner {
        text: document,
        at: 0,
        written: String::with_capacity(document.len()),
    }
    .scan()
    .map(Cow::Owned)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    written: String,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn copy(&mut self, length: usize) {
        let end = (self.at + length).min(self.text.len());
        self.written
            .push_str(self.text.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    fn scan(mut self) -> Result<String, RequestError> {
        while let Some(next) = self.rest().chars().next() {
            if next == '#' {
                self.copy(self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()));
            } else if self.rest().starts_with("\"\"\"") {
                self.block_string();
            } else if next == '"' {
                self.string()?;
            } else {
                self.copy(next.len_utf8());
            }
        }
        Ok(self.written)
    }

    /// A block string has only one escape, the one for its own delimiter.
    fn block_string(&mut self) {
        self.copy(3);
        while !self.rest().is_empty() {
            if self.rest().starts_with("\\\"\"\"") {
                self.copy(4);
            } else if self.rest().starts_with("\"\"\"") {
                return self.copy(3);
            } else {
                self.copy(self.rest().chars().next().map_or(1, char::len_utf8));
            }
        }
    }

    fn string(&mut self) -> Result<(), RequestError> {
        self.copy(1);
        while let Some(next) = self.rest().chars().next() {
            match next {
                '"' => {
                    self.copy(1);
                    return Ok(());
                }
                // A string cannot continue on the next line. The parser reports the error.
                '\n' | '\r' => return Ok(()),
                '\\' if self.rest().starts_with("\\u") => self.unicode()?,
                '\\' => {
                    self.copy(1);
                    self.copy(self.rest().chars().next().map_or(0, char::len_utf8));
                }
                _ => self.copy(next.len_utf8()),
            }
        }
        Ok(())
    }

    fn unicode(&mut self) -> Result<(), RequestError> {
        let rest = self.rest();
        if let Some(braced) = rest.strip_prefix("\\u{") {
            let end = braced.find('}').unwrap_or(0);
            let named = braced
                .get(..end)
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .and_then(char::from_u32)
                .ok_or_else(|| self.wrong("this escape names no character"))?;
            self.at += 4 + end;
            self.write(named);
            return Ok(());
        }
        let Some(first) = code_unit(rest) else {
            // There are no four hexadecimal digits. The parser reports the error.
            self.copy(2);
            return Ok(());
        };
        if !(0xD800..=0xDFFF).contains(&first) {
            self.copy(6);
            return Ok(());
        }
        let second = rest.get(6..).and_then(code_unit);
        let pair = second.map(|second| [first, second]);
        let named = pair
            .and_then(|pair| char::decode_utf16(pair).next())
            .and_then(Result::ok)
            .ok_or_else(|| {
                self.wrong("half of a surrogate pair stands alone: both halves are needed, such as \\uD83D\\uDE00")
            })?;
        self.at += 12;
        self.write(named);
        Ok(())
    }

    /// Writes the character of an escape. It stays escaped if it would end the string or is a control character.
    fn write(&mut self, named: char) {
        match named {
            '"' | '\\' => {
                self.written.push('\\');
                self.written.push(named);
            }
            control if control.is_control() => {
                self.written
                    .push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            other => self.written.push(other),
        }
    }

    fn wrong(&self, what: &str) -> RequestError {
        RequestError::syntax(what, Some(Location::of(self.text, self.at)))
    }
}

/// The code unit of an escape `\uXXXX` at the start of the text.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pairs_and_braced_escapes_become_their_character() {
        for (document, written) in [
            (r#"{a(b:"\uD83D\uDE00")}"#, r#"{a(b:"😀")}"#),
            (r#"{a(b:"x\ud83d\ude00y\u{1F600}")}"#, r#"{a(b:"x😀y😀")}"#),
            (
                r#"{a(b:"\u{41}\u0042\uD83D\uDE00")}"#,
                r#"{a(b:"A\u0042😀")}"#,
            ),
            (r#"{a(b:"\u{00000000041}")}"#, r#"{a(b:"A")}"#),
            (r#"{a(b:"\u{22}\u{5c}\u{A}")}"#, r#"{a(b:"\"\\\u000A")}"#),
        ] {
            assert_eq!(resolve(document).unwrap(), written);
        }
    }

    #[test]
    fn half_a_pair_is_an_error_at_its_place() {
        for document in [
            r#"{a(b:"\uD83D")}"#,
            r#"{a(b:"\uDE00\uD83D")}"#,
            r#"{a(b:"\uD83D\u0041")}"#,
            r#"{a(b:"\u{D83D}")}"#,
            r#"{a(b:"\u{110000}")}"#,
            r#"{a(b:"\u{}")}"#,
            r#"{a(b:"\u{+41}")}"#,
            r#"{a(b:"\u{100000041}")}"#,
            r#"{a(b:"\u{1F600")}"#,
        ] {
            let error = resolve(document).unwrap_err();
            assert_eq!(
                error.location(),
                Some(Location { line: 1, column: 7 }),
                "{document}"
            );
        }
    }

    #[test]
    fn what_is_no_escape_of_a_string_stays() {
        for document in [
            "{a #\\uD83D \"\n b}",
            r#"{a(b:"""\uD83D \""" \u{1}""")}"#,
            r#"{a(b:"\\uD83D", c:"\\\\u{1}")}"#,
            r#"{a(b:"\uD8"#,
            r#"\uD83D"#,
        ] {
            assert_eq!(resolve(document).unwrap(), document);
        }
    }
}
