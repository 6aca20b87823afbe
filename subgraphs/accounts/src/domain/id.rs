//! The id of a customer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::violation::{Problem, Violation};

/// A text of 1 to 64 characters of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CustomerId(String);

impl CustomerId {
    /// The maximum number of characters of an id.
    pub const MAX_LENGTH: usize = 64;

    /// Assigned ids are below this bound, so that every JSON reader can hold them as exact numbers.
    const ASSIGNED_BELOW: u64 = 1 << 53;

    /// Parses a text as an id.
    ///
    /// # Errors
    /// When it is empty, is too long or has another character. The error names the field `id`.
    pub fn parse(text: impl Into<String>) -> Result<Self, Violation> {
        let text = text.into();
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if fits {
            Ok(Self(text))
        } else {
            Err(Violation::new("id", Problem::CustomerId))
        }
    }

    /// The id to assign for a random number: a number of up to 16 digits. With a million customers, the chance that one
    /// more id is in use already is about 1 in 9,000,000,000. The caller then tries again.
    #[must_use]
    pub fn assign(random: u64) -> Self {
        Self((random % Self::ASSIGNED_BELOW).to_string())
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for CustomerId {
    type Error = Violation;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<CustomerId> for String {
    fn from(id: CustomerId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_to_sixty_four_plain_characters_are_taken() {
        for text in ["1", "123456", "a-Z_9", &"x".repeat(64)] {
            assert_eq!(
                CustomerId::parse(text).map(String::from),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn other_ids_are_refused_with_what_would_be_right() {
        for text in ["", " ", "a b", "ä", "a.b", "a/b", &"x".repeat(65)] {
            let refused = CustomerId::parse(text).map_err(|error| error.to_string());
            assert!(
                matches!(&refused, Err(message) if message.starts_with("id is no customer id: 1 to 64")),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn an_assigned_id_is_a_number_that_json_keeps_exact() {
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let id = CustomerId::assign(random);
            assert!(matches!(id.as_str().parse::<u64>(), Ok(number) if number < 1 << 53));
        }
    }
}
