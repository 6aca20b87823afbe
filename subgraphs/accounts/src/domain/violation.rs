//! A broken rule as an error: which field, why, and what would be right.

use tandem_model::printable::unprintable;

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Violation {
    /// The field's path in the customer, such as `addresses[1].postalCode`.
    pub field: String,
    /// What is wrong with the field, and what would be right.
    pub problem: Problem,
}

/// Why a value is refused. The text continues the sentence that the field's name begins, and says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A required text has no visible character.
    #[error("is empty: a text of 1 to {max} characters is needed")]
    Empty {
        /// The maximum number of characters.
        max: usize,
    },
    /// A text has too many characters.
    #[error("has {length} characters: at most {max} are allowed")]
    TooLong {
        /// The number of characters of the text.
        length: usize,
        /// The maximum number of characters.
        max: usize,
    },
    /// A text has a character that is not shown, such as a control character.
    #[error(
        "has the character U+{character:04X} at position {position}, which is not shown: only printable text is allowed, on one line"
    )]
    Unprintable {
        /// The code point of the character.
        character: u32,
        /// The position of the character, counted in characters from 1.
        position: usize,
    },
    /// A list has too many entries.
    #[error("has {count} entries: at most {max} are allowed")]
    TooMany {
        /// The number of entries of the list.
        count: usize,
        /// The maximum number of entries.
        max: usize,
    },
    /// A text is not a customer id.
    #[error("is no customer id: 1 to 64 of the characters A-Z a-z 0-9 _ - are needed")]
    CustomerId,
    /// A text is not an e-mail address.
    #[error(
        "is no e-mail address: one @ is needed, a name before it and a domain with a dot after it, such as jo@example.com"
    )]
    Email,
    /// A text is not a phone number.
    #[error(
        "is no phone number: digits are needed, with spaces and any of + - . / ( ) # * , and letters between, such as +1 201-555-0100"
    )]
    Phone,
    /// A text is not a card number.
    #[error(
        "is no card number: 12 to 19 digits are needed, with spaces or dashes between, such as 1234-5678-9012-3456"
    )]
    CardNumber,
    /// A text is not an expiration.
    #[error("is no expiration: month and year are needed as M/YY, MM/YY or MM/YYYY, such as 6/29")]
    Expiration,
}

impl Violation {
    pub(crate) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self {
            field: field.into(),
            problem,
        }
    }
}

/// The maximum number of characters of a text, unless its field has another bound.
pub(crate) const MAX_TEXT: usize = 200;

/// The maximum number of characters of a description.
pub(crate) const MAX_DESCRIPTION: usize = 1_000;

/// The part of a customer that a value belongs to. It makes the path of each of its fields.
#[derive(Clone, Debug)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn part(part: &str) -> Self {
        Self(part.to_owned())
    }

    pub(crate) fn entry(part: &str, index: usize) -> Self {
        Self(format!("{part}[{index}]"))
    }

    pub(crate) fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.0)
    }

    pub(crate) fn refuse(&self, name: &str, problem: Problem) -> Violation {
        Violation::new(self.field(name), problem)
    }

    /// Checks a required text.
    pub(crate) fn required(&self, name: &str, text: &str) -> Result<(), Violation> {
        if text.trim().is_empty() {
            return Err(self.refuse(name, Problem::Empty { max: MAX_TEXT }));
        }
        self.bounded(name, text, MAX_TEXT)
    }

    /// Checks an optional text.
    pub(crate) fn optional(&self, name: &str, text: Option<&String>) -> Result<(), Violation> {
        text.map_or(Ok(()), |text| self.bounded(name, text, MAX_TEXT))
    }

    /// Checks an optional description, which may be longer than other texts.
    pub(crate) fn description(&self, text: Option<&String>) -> Result<(), Violation> {
        text.map_or(Ok(()), |text| {
            self.bounded("description", text, MAX_DESCRIPTION)
        })
    }

    pub(crate) fn bounded(&self, name: &str, text: &str, max: usize) -> Result<(), Violation> {
        let length = text.chars().count();
        if length > max {
            return Err(self.refuse(name, Problem::TooLong { length, max }));
        }
        match unprintable(text).next() {
            Some((index, character)) => Err(self.refuse(
                name,
                Problem::Unprintable {
                    character: character.into(),
                    position: index + 1,
                },
            )),
            None => Ok(()),
        }
    }
}

/// Checks the length of a list.
pub(crate) fn at_most(part: &str, count: usize, max: usize) -> Result<(), Violation> {
    if count > max {
        return Err(Violation::new(part, Problem::TooMany { count, max }));
    }
    Ok(())
}
