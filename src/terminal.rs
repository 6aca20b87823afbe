//! Words on a terminal. Texts from outside (events, reasons, answers of services) may hold what a terminal obeys: escape sequences that
//! clear it, colour it or write into its input, and marks that turn the direction of what follows. They are shown, not obeyed.

use std::borrow::Cow;
use std::io::{Error, ErrorKind, IsTerminal, Result, Write};
use std::sync::OnceLock;

/// Why standard output could not be written, unless nobody reads it any more: a command that was asked for something has failed then.
static UNWRITTEN: OnceLock<Error> = OnceLock::new();

/// A text as a part of a line: with nothing in it that a terminal obeys, and no end of the line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// A text of several lines with nothing in it that a terminal obeys.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |any| is_obeyed(any) && any != '\n' && any != '\t')
}

/// JSON with nothing in it that a terminal obeys; it stays the same JSON.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for any in text.chars() {
        if is_obeyed(any) && any != '\n' {
            // Control characters below U+0020 are escaped in any JSON; the rest is in the basic plane.
            shown.push_str(&format!("\\u{:04x}", u32::from(any)));
        } else {
            shown.push(any);
        }
    }
    shown
}

/// Writes to standard output, with the end of a line.
pub(crate) fn say(text: &str) {
    tell(&lines(text));
}

/// Whether standard output is a terminal that is to show colours: <https://no-color.org>.
pub(crate) fn has_colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes what was made fit for a terminal to standard output, with the end of a line, at once. Whether anybody is there to read on.
pub(crate) fn tell(shown: &str) -> bool {
    print(format!("{shown}\n").as_bytes())
}

/// Writes to standard output as it is, at once. Whether anybody is there to read on.
pub(crate) fn print(bytes: &[u8]) -> bool {
    let mut output = std::io::stdout().lock();
    note(output.write_all(bytes).and_then(|()| output.flush()))
}

/// Takes note of how writing to standard output ended. Whether anybody is there to read on.
pub(crate) fn note(written: Result<()>) -> bool {
    let Err(error) = written else {
        return true;
    };
    // `tandem … | head`: the reader has what it wanted.
    if error.kind() != ErrorKind::BrokenPipe {
        // The first one counts.
        let _ = UNWRITTEN.set(error);
    }
    false
}

/// Why something that was to be written to standard output is not there.
pub(crate) fn unwritten() -> Option<&'static Error> {
    UNWRITTEN.get()
}

/// Writes to standard error, with the end of a line.
pub(crate) fn say_aside(text: &str) {
    // Nobody is there to read when it fails.
    let _ = writeln!(std::io::stderr(), "{}", lines(text));
}

/// Control characters (ECMA-48: C0, DEL and C1), and those that change the direction or the ends of lines (Unicode, UAX #9).
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
