//! Credit cards. The number arrives in clear text and is sealed at once. Only its last four digits are shown.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CustomerId,
    violation::{Path, Problem, Violation, at_most},
};

/// The maximum number of cards of one customer.
pub const MAX_CARDS: usize = 20;

/// Which card is charged first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CreditCardType {
    /// The usual one.
    Primary,
    /// Another.
    Alternate,
}

impl CreditCardType {
    /// The name in events and in the associated data of the encryption.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Alternate => "ALTERNATE",
        }
    }
}

/// A card as it is kept and published: without its number in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreditCard {
    /// Which card.
    #[serde(rename = "type")]
    pub kind: CreditCardType,
    /// What the customer calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The number's last four digits.
    pub last4: String,
    /// Month and year, as given.
    pub expiration: String,
    /// Whose name is on the card.
    pub name_on_card: String,
    /// The number, readable only with the service's key.
    pub sealed_number: String,
}

/// A card as the caller gives it, with its number in clear text.
#[derive(Clone, PartialEq, Eq)]
pub struct CardDraft {
    /// Whether the card is charged first.
    pub kind: CreditCardType,
    /// The customer's name for the card.
    pub description: Option<String>,
    /// 12 to 19 digits, with optional spaces or dashes between them.
    pub number: String,
    /// `M/YY`, `MM/YY` or `MM/YYYY`.
    pub expiration: String,
    /// The name on the card.
    pub name_on_card: String,
}

impl fmt::Debug for CardDraft {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CardDraft")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A card number in clear text: 12 to 19 digits. Its `Debug` output shows only the last four digits.
#[derive(Clone, PartialEq, Eq)]
pub struct CardNumber(String);

impl fmt::Debug for CardNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CardNumber(…{})", self.last4())
    }
}

impl CardNumber {
    /// Parses a card number. Spaces and dashes are removed. `None` if the text is not a card number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != ' ' && *c != '-').collect();
        let fits = (12..=19).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        fits.then_some(Self(digits))
    }

    /// The digits, in clear text.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// The last four digits.
    #[must_use]
    pub fn last4(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

/// Seals card numbers, so that they are unreadable at rest and in events.
///
/// A number that was sealed for one customer and one type of card cannot be opened for any other.
pub trait CardVault: Send + Sync {
    /// Seals a number.
    ///
    /// # Errors
    /// When it cannot be sealed.
    fn seal(
        &self,
        number: &CardNumber,
        customer: &CustomerId,
        kind: CreditCardType,
    ) -> Result<String, VaultError>;

    /// Opens a sealed number.
    ///
    /// # Errors
    /// When the key is a different one, or the text was changed or was sealed for another customer or type.
    fn open(
        &self,
        sealed: &str,
        customer: &CustomerId,
        kind: CreditCardType,
    ) -> Result<CardNumber, VaultError>;
}

/// A card number could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the card number cannot be {action}: {reason}")]
pub struct VaultError {
    /// `sealed` or `opened`.
    pub action: &'static str,
    /// Why. It never contains a card number.
    pub reason: String,
}

/// A card that keeps the rules. Its number is still in clear text.
#[derive(Clone, Debug)]
pub(crate) struct CheckedCard {
    kind: CreditCardType,
    description: Option<String>,
    number: CardNumber,
    expiration: String,
    name_on_card: String,
}

impl CardDraft {
    pub(crate) fn check_all(cards: Vec<Self>) -> Result<Vec<CheckedCard>, Violation> {
        at_most("creditCards", cards.len(), MAX_CARDS)?;
        cards
            .into_iter()
            .enumerate()
            .map(|(index, card)| card.check(&Path::entry("creditCards", index)))
            .collect()
    }

    fn check(self, path: &Path) -> Result<CheckedCard, Violation> {
        path.description(self.description.as_ref())?;
        let number = CardNumber::parse(&self.number)
            .ok_or_else(|| path.refuse("number", Problem::CardNumber))?;
        if !is_expiration(&self.expiration) {
            return Err(path.refuse("expiration", Problem::Expiration));
        }
        path.required("nameOnCard", &self.name_on_card)?;
        Ok(CheckedCard {
            kind: self.kind,
            description: self.description,
            number,
            expiration: self.expiration,
            name_on_card: self.name_on_card,
        })
    }
}

impl CheckedCard {
    /// Whether a stored card is equal to this one. A stored number that cannot be opened counts as different, so that
    /// the caller can repair it by giving the card again.
    fn is(&self, stored: &CreditCard, customer: &CustomerId, vault: &dyn CardVault) -> bool {
        self.kind == stored.kind
            && self.description == stored.description
            && self.number.last4() == stored.last4
            && self.expiration == stored.expiration
            && self.name_on_card == stored.name_on_card
            && vault
                .open(&stored.sealed_number, customer, stored.kind)
                .is_ok_and(|number| number == self.number)
    }

    /// Whether the stored list holds the same cards in the same order. Sealed texts differ each time a number is
    /// sealed, so the numbers themselves are compared.
    pub(crate) fn are(
        cards: &[Self],
        stored: &[CreditCard],
        customer: &CustomerId,
        vault: &dyn CardVault,
    ) -> bool {
        cards.len() == stored.len()
            && cards
                .iter()
                .zip(stored)
                .all(|(card, stored)| card.is(stored, customer, vault))
    }

    pub(crate) fn seal_all(
        cards: Vec<Self>,
        customer: &CustomerId,
        vault: &dyn CardVault,
    ) -> Result<Vec<CreditCard>, VaultError> {
        cards
            .into_iter()
            .map(|card| {
                Ok(CreditCard {
                    sealed_number: vault.seal(&card.number, customer, card.kind)?,
                    kind: card.kind,
                    description: card.description,
                    last4: card.number.last4().to_owned(),
                    expiration: card.expiration,
                    name_on_card: card.name_on_card,
                })
            })
            .collect()
    }
}

/// Whether the text is a month and a year. A date in the past is accepted, because the documented sample has one.
fn is_expiration(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let Some((month, year)) = text.split_once('/') else {
        return false;
    };
    digits(month)
        && digits(year)
        && month.len() <= 2
        && matches!(month.parse::<u8>(), Ok(1..=12))
        && (year.len() == 2 || year.len() == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_of_the_documented_forms_are_taken() {
        for text in ["6/19", "06/19", "12/2031", "1/2031"] {
            assert!(is_expiration(text), "{text}");
        }
        for text in [
            "", "6", "0/19", "13/19", "6/1", "6/019", "6/19/2", "006/19", "+6/19", "6-19",
        ] {
            assert!(!is_expiration(text), "{text}");
        }
    }

    #[test]
    fn a_number_is_taken_with_spaces_and_dashes_and_shows_only_its_end() {
        let number = CardNumber::parse("1234-6789-0000 0012");
        assert_eq!(
            number.as_ref().map(CardNumber::digits),
            Some("1234678900000012")
        );
        assert_eq!(format!("{number:?}"), "Some(CardNumber(…0012))");
        for text in [
            "",
            "12345678901",
            "12345678901234567890",
            "1234_6789_0000",
            "١٢٣٤٥٦٧٨٩٠١٢",
        ] {
            assert_eq!(CardNumber::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_draft_does_not_show_its_number() {
        let draft = CardDraft {
            kind: CreditCardType::Primary,
            description: None,
            number: "1234678900000012".to_owned(),
            expiration: "6/19".to_owned(),
            name_on_card: "Jo".to_owned(),
        };
        assert_eq!(format!("{draft:?}"), "CardDraft { kind: Primary, .. }");
    }
}
