//! The rules of the customer aggregate, with properties that hold for any input.
#![allow(clippy::disallowed_methods, reason = "tests date what they make")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use chrono::{TimeDelta, Utc};
use proptest::prelude::*;
use tandem_accounts::{
    domain::{
        Address, AddressType, Asked, CardDraft, Change, ChangeType, Contact, CreateCustomer,
        CreditCardType, Customer, CustomerError, CustomerId, Name, Part, Problem, UpdateCustomer,
        event::CustomerChangeEvent,
    },
    vault::SealedCards,
};
use tandem_event_path::sealing::Sealer;
use tandem_model::aggregate::Aggregate;
use tandem_model::seal::Key;
use uuid::Uuid;

fn vault() -> SealedCards {
    SealedCards::new(Sealer::new(&[7; 32]))
}

fn asked() -> Asked {
    Asked {
        by: "tests".to_owned(),
        at: Utc::now().into(),
        traceparent: None,
    }
}

fn name(first: &str) -> Name {
    Name {
        first_name: first.to_owned(),
        last_name: "Doe".to_owned(),
        ..Name::default()
    }
}

fn contact() -> Contact {
    Contact {
        primary_phone: "201-123-4567".to_owned(),
        secondary_phone: None,
        email: "jo@example.com".to_owned(),
    }
}

fn address(city: &str) -> Address {
    Address {
        kind: AddressType::Shipping,
        description: None,
        address1: "123 Main Street".to_owned(),
        address2: None,
        city: city.to_owned(),
        state: "NY".to_owned(),
        postal_code: "12345".to_owned(),
    }
}

fn card(number: &str) -> CardDraft {
    CardDraft {
        kind: CreditCardType::Primary,
        description: None,
        number: number.to_owned(),
        expiration: "6/19".to_owned(),
        name_on_card: "Jo Doe".to_owned(),
    }
}

fn command() -> CreateCustomer {
    CreateCustomer {
        id: id(),
        name: name("Jo"),
        contact: contact(),
        addresses: vec![address("Anytown")],
        credit_cards: vec![card("1234-6789-0000-0000")],
    }
}

fn id() -> CustomerId {
    CustomerId::parse("123456").unwrap()
}

fn created() -> Customer {
    Customer::create(None, command(), asked(), &vault())
        .unwrap()
        .customer
}

fn update(customer: &Customer, command: UpdateCustomer) -> Result<Option<Change>, CustomerError> {
    Customer::update(Some(customer), &id(), command, None, asked(), &vault())
}

fn refused_field(error: CustomerError) -> String {
    match error {
        CustomerError::Invalid(violation) => violation.field,
        other => panic!("not a violation: {other}"),
    }
}

#[test]
fn creation_is_revision_one_and_tells_the_parts_given() {
    let change = Customer::create(None, command(), asked(), &vault()).unwrap();
    assert_eq!(change.customer.revision(), 1);
    assert_eq!(change.kind, ChangeType::Created);
    assert_eq!(
        change.parts,
        [
            Part::Name,
            Part::Contact,
            Part::Addresses,
            Part::CreditCards
        ]
    );
    let bare = CreateCustomer {
        addresses: Vec::new(),
        credit_cards: Vec::new(),
        ..command()
    };
    let change = Customer::create(None, bare, asked(), &vault()).unwrap();
    assert_eq!(change.parts, [Part::Name, Part::Contact]);
}

#[test]
fn an_id_in_use_is_refused() {
    let there = created();
    let refused = Customer::create(Some(&there), command(), asked(), &vault()).unwrap_err();
    assert_eq!(refused, CustomerError::AlreadyExists(id()));
}

#[test]
fn no_state_or_event_holds_the_card_number() {
    let change = Customer::create(None, command(), asked(), &vault()).unwrap();
    let state = serde_json::to_string(&change.customer).unwrap();
    let told = CustomerChangeEvent::of(&change)
        .into_cloud_event(Uuid::now_v7(), None)
        .unwrap()
        .data;
    for text in [
        state,
        told,
        format!("{change:?}"),
        format!("{:?}", command()),
    ] {
        assert!(!text.contains("1234678900000000"), "{text}");
        assert!(!text.contains("1234-6789"), "{text}");
        assert!(!text.contains("12346789"), "{text}");
    }
}

#[test]
fn an_update_of_nobody_is_refused() {
    let refused = Customer::update(
        None,
        &id(),
        UpdateCustomer::default(),
        None,
        asked(),
        &vault(),
    );
    assert_eq!(refused.unwrap_err(), CustomerError::NotFound(id()));
}

#[test]
fn a_stale_revision_is_refused() {
    let customer = created();
    let refused = Customer::update(
        Some(&customer),
        &id(),
        UpdateCustomer::default(),
        Some(2),
        asked(),
        &vault(),
    );
    assert_eq!(
        refused.unwrap_err(),
        CustomerError::RevisionConflict {
            id: id(),
            expected: 2,
            actual: 1
        }
    );
}

#[test]
fn giving_the_same_again_changes_nothing() {
    let customer = created();
    let same = UpdateCustomer {
        name: Some(name("Jo")),
        contact: Some(contact()),
        addresses: Some(vec![address("Anytown")]),
        credit_cards: Some(vec![card("1234 6789 0000 0000")]),
    };
    assert!(update(&customer, same).unwrap().is_none());
    let again = Customer::replace_or_create(Some(&customer), command(), asked(), &vault());
    assert!(again.unwrap().is_none());
}

#[test]
fn another_number_with_the_same_last_digits_is_a_change() {
    let customer = created();
    let other = UpdateCustomer {
        credit_cards: Some(vec![card("9999-6789-0000-0000")]),
        ..UpdateCustomer::default()
    };
    let change = update(&customer, other).unwrap().unwrap();
    assert_eq!(change.parts, [Part::CreditCards]);
}

#[test]
fn a_card_that_no_longer_opens_is_repaired_by_giving_it_again() {
    let customer = created();
    let other_key = SealedCards::new(Sealer::new(&[8; 32]));
    let again = UpdateCustomer {
        credit_cards: Some(vec![card("1234-6789-0000-0000")]),
        ..UpdateCustomer::default()
    };
    let change = Customer::update(Some(&customer), &id(), again, None, asked(), &other_key);
    assert_eq!(change.unwrap().unwrap().parts, [Part::CreditCards]);
}

#[test]
fn a_clock_that_was_set_back_does_not_turn_the_order_of_changes() {
    let customer = created();
    let early = Asked {
        at: (Utc::now() - TimeDelta::hours(1)).into(),
        ..asked()
    };
    let other = UpdateCustomer {
        name: Some(name("Max")),
        ..UpdateCustomer::default()
    };
    let change = Customer::update(Some(&customer), &id(), other, None, early, &vault())
        .unwrap()
        .unwrap();
    assert_eq!(change.customer.updated_at(), customer.updated_at());
}

#[test]
fn the_documented_route_takes_any_text_as_email_and_graphql_does_not() {
    let mut sample = command();
    sample.contact.email = "[email protected]".to_owned();
    let made = Customer::replace_or_create(None, sample.clone(), asked(), &vault());
    assert!(made.unwrap().is_some());
    let refused = Customer::create(None, sample, asked(), &vault()).unwrap_err();
    assert_eq!(refused_field(refused), "contact.email");
}

#[test]
fn a_refusal_names_the_field_and_says_what_would_be_right() {
    let mut bad = command();
    bad.addresses.push(address("Anytown"));
    bad.addresses[1].postal_code = "   ".to_owned();
    let refused = Customer::create(None, bad, asked(), &vault()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "addresses[1].postalCode is empty: a text of 1 to 200 characters is needed"
    );

    type Spoil = fn(&mut CreateCustomer);
    let cases: [(&str, Spoil); 15] = [
        ("name.firstName", |c| c.name.first_name.clear()),
        ("name.lastName", |c| c.name.last_name = "x".repeat(201)),
        ("name.title", |c| c.name.title = Some("a\u{0}b".to_owned())),
        ("name.firstName", |c| {
            c.name.first_name = "\u{200B}".to_owned()
        }),
        ("name.lastName", |c| {
            c.name.last_name = "Do\u{202E}e".to_owned();
        }),
        ("creditCards[0].nameOnCard", |c| {
            c.credit_cards[0].name_on_card = "Jo\u{2028}Doe".to_owned();
        }),
        ("contact.primaryPhone", |c| c.contact.primary_phone.clear()),
        ("contact.secondaryPhone", |c| {
            c.contact.secondary_phone = Some("none!".to_owned());
        }),
        ("contact.email", |c| c.contact.email = "jo".to_owned()),
        ("addresses", |c| c.addresses = vec![address("x"); 101]),
        ("addresses[0].description", |c| {
            c.addresses[0].description = Some("x".repeat(1_001));
        }),
        ("addresses[0].city", |c| {
            c.addresses[0].city = "a\nb".to_owned();
        }),
        ("creditCards", |c| {
            c.credit_cards = vec![card("123456789012"); 21];
        }),
        ("creditCards[0].number", |c| {
            c.credit_cards[0].number = "1234".to_owned();
        }),
        ("creditCards[0].expiration", |c| {
            c.credit_cards[0].expiration = "19/6".to_owned();
        }),
    ];
    for (field, spoil) in cases {
        let mut bad = command();
        spoil(&mut bad);
        let refused = Customer::create(None, bad, asked(), &vault()).unwrap_err();
        assert_eq!(refused_field(refused), field);
    }
}

#[test]
fn a_refused_number_is_not_repeated_in_the_message() {
    let mut bad = command();
    bad.credit_cards[0].number = "1234-6789-0000-000X".to_owned();
    let refused = Customer::create(None, bad, asked(), &vault()).unwrap_err();
    assert!(!refused.to_string().contains("6789"), "{refused}");
    assert!(matches!(
        refused,
        CustomerError::Invalid(violation) if violation.problem == Problem::CardNumber
    ));
}

#[test]
fn an_event_brings_the_whole_customer_back() {
    let change = Customer::create(None, command(), asked(), &vault()).unwrap();
    let told = CustomerChangeEvent::of(&change)
        .into_cloud_event(Uuid::now_v7(), None)
        .unwrap();
    let restored = CustomerChangeEvent::read(&told.clone().into())
        .unwrap()
        .into_customer(Key::Erased)
        .unwrap();
    assert_eq!(restored, change.customer);
}

fn text() -> impl Strategy<Value = String> {
    "[A-Za-z][A-Za-zäöü' -]{0,20}"
}

prop_compose! {
    fn any_name()(title in proptest::option::of(text()), first_name in text(), last_name in text()) -> Name {
        Name { title, first_name, middle_name: None, last_name, suffix: None }
    }
}

prop_compose! {
    fn any_contact()(phone in "[0-9]{3}-[0-9]{4}", user in "[a-z]{1,8}") -> Contact {
        Contact { primary_phone: phone, secondary_phone: None, email: format!("{user}@example.com") }
    }
}

prop_compose! {
    fn any_address()(city in text(), kind in prop_oneof![
        Just(AddressType::Billing), Just(AddressType::Shipping), Just(AddressType::ShippingAlternate)
    ]) -> Address {
        Address { kind, ..address(&city) }
    }
}

prop_compose! {
    fn any_card()(number in "[0-9]{12,19}") -> CardDraft { card(&number) }
}

prop_compose! {
    fn any_update()(
        name in proptest::option::of(any_name()),
        contact in proptest::option::of(any_contact()),
        addresses in proptest::option::of(proptest::collection::vec(any_address(), 0..3)),
        credit_cards in proptest::option::of(proptest::collection::vec(any_card(), 0..3)),
    ) -> UpdateCustomer {
        UpdateCustomer { name, contact, addresses, credit_cards }
    }
}

proptest! {
    #[test]
    fn every_change_is_one_more_revision_and_leaves_what_was_not_given(updates in proptest::collection::vec(any_update(), 1..8)) {
        let mut customer = created();
        for command in updates {
            let before = customer.clone();
            let Some(change) = update(&customer, command.clone()).unwrap() else {
                // Nothing differed, so every given part equals the present one.
                prop_assert!(command.name.is_none_or(|name| name == *before.name()));
                prop_assert!(command.contact.is_none_or(|contact| contact == *before.contact()));
                prop_assert!(command.addresses.is_none_or(|list| list == before.addresses()));
                continue;
            };
            customer = change.customer.clone();
            prop_assert_eq!(customer.revision(), before.revision() + 1);
            prop_assert_eq!(customer.created_at(), before.created_at());
            prop_assert!(customer.updated_at() >= before.updated_at());
            let differs = |part| change.parts.contains(&part);
            prop_assert_eq!(differs(Part::Name), customer.name() != before.name());
            prop_assert_eq!(differs(Part::Contact), customer.contact() != before.contact());
            prop_assert_eq!(differs(Part::Addresses), customer.addresses() != before.addresses());
            prop_assert_eq!(differs(Part::CreditCards), customer.credit_cards() != before.credit_cards());
            prop_assert!(command.name.is_some() || customer.name() == before.name());
            prop_assert!(command.contact.is_some() || customer.contact() == before.contact());
            prop_assert!(command.addresses.is_some() || customer.addresses() == before.addresses());
            prop_assert!(command.credit_cards.is_some() || customer.credit_cards() == before.credit_cards());
            // The same update again changes nothing.
            prop_assert!(update(&customer, command).unwrap().is_none());
            // The event restores exactly this state.
            let told = CustomerChangeEvent::of(&change).into_cloud_event(Uuid::now_v7(), None).unwrap();
            prop_assert_eq!(CustomerChangeEvent::read(&told.clone().into()).unwrap().into_customer(Key::Erased).unwrap(), customer.clone());
        }
    }

    #[test]
    fn an_input_with_one_bad_part_changes_nothing(command in any_update(), which in 0..4) {
        let mut command = command;
        match which {
            0 => command.name = Some(name(" ")),
            1 => command.contact = Some(Contact { email: "nobody".to_owned(), ..contact() }),
            2 => command.addresses = Some(vec![address("")]),
            _ => command.credit_cards = Some(vec![card("12")]),
        }
        let customer = created();
        prop_assert!(matches!(update(&customer, command), Err(CustomerError::Invalid(_))));
    }

    #[test]
    fn no_text_makes_the_rules_panic(anything in any::<String>()) {
        let mut any = command();
        any.name.first_name.clone_from(&anything);
        any.contact.email.clone_from(&anything);
        any.contact.primary_phone.clone_from(&anything);
        any.addresses[0].postal_code.clone_from(&anything);
        any.credit_cards[0].number.clone_from(&anything);
        any.credit_cards[0].expiration.clone_from(&anything);
        let _ = Customer::create(None, any, asked(), &vault());
        let _ = CustomerId::parse(anything);
    }
}
