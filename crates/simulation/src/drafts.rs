//! The data of customers and orders that clients send. Each contains the mark of its request.

use std::str::FromStr;

use rust_decimal::Decimal;
use tandem_accounts::domain::{Address, AddressType, CardDraft, Contact, CreditCardType, Name};
use tandem_orders::domain::{OrderItem, Product};

pub(crate) fn name(mark: &str) -> Name {
    Name {
        first_name: mark.to_owned(),
        last_name: "Lovelace".to_owned(),
        ..Name::default()
    }
}

pub(crate) fn contact(mark: &str) -> Contact {
    Contact {
        primary_phone: "555-666-7777".to_owned(),
        secondary_phone: None,
        email: format!("{mark}@example.com"),
    }
}

pub(crate) fn address(mark: &str) -> Address {
    Address {
        kind: AddressType::Shipping,
        description: None,
        address1: format!("Street of {mark}"),
        address2: None,
        city: "New York".to_owned(),
        state: "NY".to_owned(),
        postal_code: "10110".to_owned(),
    }
}

pub(crate) fn card(mark: &str) -> CardDraft {
    CardDraft {
        kind: CreditCardType::Primary,
        description: None,
        number: "4111 1111 1111 1111".to_owned(),
        expiration: "12/2031".to_owned(),
        name_on_card: mark.to_owned(),
    }
}

pub(crate) fn item(mark: &str) -> OrderItem {
    OrderItem {
        product: Product {
            guid: mark.to_owned(),
            title: format!("of {mark}"),
            description: None,
            price: Decimal::from_str("1.50").unwrap_or_default(),
        },
        quantity: 1,
    }
}
