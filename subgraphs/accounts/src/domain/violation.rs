//! How a rule says that it is broken: which field, why, and what would be right.

use tandem_model::printable::unprintable;

/// A field that does not keep its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct Violation {
    /// The field's path in the customer, such as `addresses[1].postalCode`.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: Problem,
}

/// Why a value is refused. The text goes on after the field's name and says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A required text without a visible character.
    #[error("is empty: a text of 1 to {max} characters is needed")]
    Empty {
        /// Most characters that are allowed.
        max: usize,
    },
    /// A text with too many characters.
    #[error("has {length} characters: at most {max} are allowed")]
    TooLong {
        /// Characters it has.
        length: usize,
        /// Most characters that are allowed.
        max: usize,
    },
    /// A text with a character that steers or hides instead of being shown.
    #[error(
        "has the character U+{character:04X} at position {position}, which is not shown: only printable text is allowed, on one line"
    )]
    Unprintable {
        /// The character's code point.
        character: u32,
        /// Where it is, counted in characters from 1.
        position: usize,
    },
    /// A list with too many entries.
    #[error("has {count} entries: at most {max} are allowed")]
    TooMany {
        /// Entries it has.
        count: usize,
        /// Most entries that are allowed.
        max: usize,
    },
    /// An identity that is none.
    #[error("is no customer id: 1 to 64 of the characters A-Z a-z 0-9 _ - are needed")]
    CustomerId,
    /// An e-mail address that is none.
    #[error(
        "is no e-mail address: one @ is needed, a name before it and a domain with a dot after it, such as jo@example.com"
    )]
    Email,
    /// A phone number that is none.
    #[error(
        "is no phone number: digits are needed, with spaces and any of + - . / ( ) # * , and letters between, such as +1 201-555-0100"
    )]
    Phone,
    /// A card number that is none.
    #[error(
        "is no card number: 12 to 19 digits are needed, with spaces or dashes between, such as 1234-5678-9012-3456"
    )]
    CardNumber,
    /// An expiration that is none.
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

/// Most characters of a text, unless its field says otherwise.
pub(crate) const MAX_TEXT: usize = 200;

/// Most characters of a description.
pub(crate) const MAX_DESCRIPTION: usize = 1_000;

/// Where a value is: the part that it belongs to, and how its fields are called.
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

    /// A text that must be there.
    pub(crate) fn required(&self, name: &str, text: &str) -> Result<(), Violation> {
        if text.trim().is_empty() {
            return Err(self.refuse(name, Problem::Empty { max: MAX_TEXT }));
        }
        self.bounded(name, text, MAX_TEXT)
    }

    /// A text that may be missing.
    pub(crate) fn optional(&self, name: &str, text: Option<&String>) -> Result<(), Violation> {
        text.map_or(Ok(()), |text| self.bounded(name, text, MAX_TEXT))
    }

    /// A longer text that may be missing.
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

/// A list that must not grow without bound.
pub(crate) fn at_most(part: &str, count: usize, max: usize) -> Result<(), Violation> {
    if count > max {
        return Err(Violation::new(part, Problem::TooMany { count, max }));
    }
    Ok(())
}
