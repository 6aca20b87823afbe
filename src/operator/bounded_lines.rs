//! Reads lines of bounded length from a file that the user names. A file without line ends is not one of ours, and must
//! not fill the memory.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

/// The lines of a text. A line longer than the limit is an error.
pub(super) struct BoundedLines<R> {
    text: R,
    longest: u64,
    /// The number of the next line.
    number: u64,
}

impl<R: BufRead> BoundedLines<R> {
    pub(super) fn new(text: R, longest: u64) -> Self {
        Self {
            text,
            longest,
            number: 1,
        }
    }

    fn read(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        // One byte more, for the line end.
        let mut bounded = self.text.by_ref().take(self.longest + 1);
        bounded.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let invalid = |what: &str| {
            let told = format!("line {} {what}", self.number);
            Error::new(ErrorKind::InvalidData, told)
        };
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 > self.longest {
            return Err(invalid(&format!("has more than {} bytes", self.longest)));
        }
        let line = String::from_utf8(line).map_err(|_| invalid("is no text in UTF-8"))?;
        self.number += 1;
        Ok(Some(line))
    }
}

impl<R: BufRead> Iterator for BoundedLines<R> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{BufReader, repeat};

    use super::*;

    #[test]
    fn lines_come_as_they_are_up_to_the_longest() {
        let lines = BoundedLines::new(&b"12345\n\n123"[..], 5);
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(lines, ["12345", "", "123"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut lines = BoundedLines::new(BufReader::new(repeat(0)), 1_000);
        let error = lines.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "line 1 has more than 1000 bytes");
        let mut lines = BoundedLines::new(&b"1\n123456\n"[..], 5);
        assert!(lines.next().unwrap().is_ok());
        let error = lines.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "line 2 has more than 5 bytes");
    }

    #[test]
    fn what_is_no_text_is_told_with_its_line() {
        let mut lines = BoundedLines::new(&b"\xff\n"[..], 5);
        let error = lines.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "line 1 is no text in UTF-8");
    }
}
