//! The adapter of the domain's [`CardVault`]. It seals card numbers with the service's key.

use tandem_event_path::{
    data_keys::DataKey,
    sealing::{OpenError, Sealer},
};

use crate::domain::{CardNumber, CardVault, CreditCardType, Customer, CustomerId, VaultError};

/// Seals each number for its customer and its type of card.
#[derive(Clone, Debug)]
pub struct SealedCards(Sealer);

impl SealedCards {
    /// Creates a vault with this key.
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self(sealer)
    }
}

/// The number of a card, sealed with the newest key. `None` if it already is.
///
/// # Errors
/// When it cannot be opened.
fn reseal(
    service: &Sealer,
    sealed: &str,
    customer: &CustomerId,
    kind: CreditCardType,
) -> Result<Option<String>, OpenError> {
    service.reseal(sealed, place(customer, kind).as_bytes())
}

/// A customer with everything sealed with the newest sealing key, and whether a card was re-sealed. `None` if
/// everything already is.
///
/// # Errors
/// When something cannot be opened.
pub fn resealed(
    service: &Sealer,
    customer: &Customer,
) -> Result<Option<(Customer, bool)>, OpenError> {
    let id = customer.customer_id();
    customer.resealed(
        |wrapped| DataKey::rewrap(service, wrapped, id.as_str()),
        |card| reseal(service, &card.sealed_number, id, card.kind),
    )
}

/// The context that a number is sealed for. No id contains a `/`, so it is unambiguous.
fn place(customer: &CustomerId, kind: CreditCardType) -> String {
    format!("{customer}/{}", kind.as_str())
}

impl CardVault for SealedCards {
    fn seal(
        &self,
        number: &CardNumber,
        customer: &CustomerId,
        kind: CreditCardType,
    ) -> Result<String, VaultError> {
        Ok(self
            .0
            .seal(number.digits().as_bytes(), place(customer, kind).as_bytes()))
    }

    fn open(
        &self,
        sealed: &str,
        customer: &CustomerId,
        kind: CreditCardType,
    ) -> Result<CardNumber, VaultError> {
        let failed = |reason: String| VaultError {
            action: "opened",
            reason,
        };
        let digits = self
            .0
            .open(sealed, place(customer, kind).as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        std::str::from_utf8(&digits)
            .ok()
            .and_then(CardNumber::parse)
            .ok_or_else(|| failed("what was sealed is no card number".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_opens_for_its_customer_and_type_alone() {
        let vault = SealedCards::new(Sealer::new(&[7; 32]));
        let number = CardNumber::parse("1234-6789-0000-0000").unwrap();
        let jo = CustomerId::parse("jo").unwrap();
        let max = CustomerId::parse("max").unwrap();
        let sealed = vault.seal(&number, &jo, CreditCardType::Primary).unwrap();
        assert!(!sealed.contains("0000"));
        assert_eq!(
            vault.open(&sealed, &jo, CreditCardType::Primary),
            Ok(number)
        );
        assert!(vault.open(&sealed, &max, CreditCardType::Primary).is_err());
        assert!(vault.open(&sealed, &jo, CreditCardType::Alternate).is_err());
    }
}
