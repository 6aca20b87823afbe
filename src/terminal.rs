//! Output to a terminal, with control sequences made visible.
//!
//! Text from outside (events, reasons, answers of services) may hold sequences that a terminal obeys. They clear the
//! screen, change colours, write into the terminal's input, or change the direction of text.

use std::borrow::Cow;
use std::io::{Error, ErrorKind, IsTerminal, Result, Write};
use std::sync::OnceLock;

/// The first failure to write to standard output. The command must then report an error. A closed pipe does not count.
static UNWRITTEN: OnceLock<Error> = OnceLock::new();

/// A text as part of a line: control characters and line ends are escaped.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// A text of several lines: control characters are escaped, except line ends and tabs.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |any| is_obeyed(any) && any != '\n' && any != '\t')
}

/// JSON with control characters escaped. It means the same JSON value.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for any in text.chars() {
        if is_obeyed(any) && any != '\n' {
            // JSON already escapes control characters below U+0020. All the others are in the basic plane, so four
            // digits suffice.
            shown.push_str(&format!("\\u{:04x}", u32::from(any)));
        } else {
            shown.push(any);
        }
    }
    shown
}

/// Writes a line to standard output.
pub(crate) fn say(text: &str) {
    tell(&lines(text));
}

/// Whether standard output is a terminal and may show colours (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes a line that is already escaped to standard output and flushes it. Returns whether the reader is still there.
pub(crate) fn tell(shown: &str) -> bool {
    print(format!("{shown}\n").as_bytes())
}

/// Writes bytes to standard output unchanged and flushes them. Returns whether the reader is still there.
pub(crate) fn print(bytes: &[u8]) -> bool {
    let mut output = std::io::stdout().lock();
    note(output.write_all(bytes).and_then(|()| output.flush()))
}

/// Records the outcome of a write to standard output. Returns whether the reader is still there.
pub(crate) fn note(written: Result<()>) -> bool {
    let Err(error) = written else {
        return true;
    };
    // `tandem … | head`: the reader has read all that it wanted.
    if error.kind() != ErrorKind::BrokenPipe {
        // The first failure counts.
        let _ = UNWRITTEN.set(error);
    }
    false
}

/// Why a write to standard output failed, if one did.
pub(crate) fn unwritten() -> Option<&'static Error> {
    UNWRITTEN.get()
}

/// Writes a line to standard error.
pub(crate) fn say_aside(text: &str) {
    // A failure means that nobody reads standard error.
    let _ = writeln!(std::io::stderr(), "{}", lines(text));
}

/// Control characters (ECMA-48: C0, DEL and C1), and characters that change the text direction or end a line (Unicode,
/// UAX #9).
fn is_obeyed(any: char) -> bool {
    any.is_control()
        || matches!(
            any,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for any in text.chars() {
        if is_escaped(any) {
            shown.extend(any.escape_default());
        } else {
            shown.push(any);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let hostile = "a\x1b[31mb\u{9b}2J\u{202e}c\x07\x7f\r\nd\te";
        assert_eq!(
            one_line(hostile),
            r"a\u{1b}[31mb\u{9b}2J\u{202e}c\u{7}\u{7f}\r\nd\te"
        );
        assert_eq!(
            lines(hostile),
            "a\\u{1b}[31mb\\u{9b}2J\\u{202e}c\\u{7}\\u{7f}\\r\nd\te"
        );
        assert_eq!(one_line("Zoë 😀 שלום"), "Zoë 😀 שלום");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"a\u{9b}": "\u{202e}\u{7f}\x1b[31m\n"});
        let shown = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(shown.chars().all(|any| any == '\n' || !is_obeyed(any)));
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, value);
    }
}
