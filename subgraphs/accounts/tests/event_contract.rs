//! The producer's side of `schema/events/customer-change-event.v1.json`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use chrono::Utc;
use serde_json::{Value, json};
use tandem_accounts::{
    audit,
    domain::{
        Address, AddressType, Asked, CardDraft, Contact, CreateCustomer, CreditCardType, Customer,
        CustomerId, Name, UpdateCustomer,
        event::{self, CustomerChangeEvent, UnreadableEvent},
    },
    vault::SealedCards,
};
use tandem_kit::{event::CloudEvent, event_contract, sealing::Sealer};

const COMMITTED: &str = include_str!("../../../schema/events/customer-change-event.v1.json");

fn events() -> Vec<CloudEvent> {
    let vault = SealedCards::new(Sealer::new(&[7; 32]));
    let asked = || Asked {
        by: "tests".to_owned(),
        at: Utc::now().into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    };
    let full = CreateCustomer {
        id: CustomerId::parse("123456").unwrap(),
        name: Name {
            title: Some("Mr.".to_owned()),
            first_name: "John".to_owned(),
            middle_name: Some("S.".to_owned()),
            last_name: "Doe".to_owned(),
            suffix: Some("Jr.".to_owned()),
        },
        contact: Contact {
            primary_phone: "201-123-4567".to_owned(),
            secondary_phone: Some("201-123-4568".to_owned()),
            email: "jo@example.com".to_owned(),
        },
        addresses: vec![Address {
            kind: AddressType::ShippingAlternate,
            description: Some("home".to_owned()),
            address1: "123 Main Street".to_owned(),
            address2: None,
            city: "Anytown".to_owned(),
            state: "NY".to_owned(),
            postal_code: "12345-6789".to_owned(),
        }],
        credit_cards: vec![CardDraft {
            kind: CreditCardType::Alternate,
            description: None,
            number: "1234-6789-0000-0000".to_owned(),
            expiration: "6/19".to_owned(),
            name_on_card: "John Doe".to_owned(),
        }],
    };
    let created = Customer::create(None, full, asked(), &vault).unwrap();
    let bare = UpdateCustomer {
        name: Some(Name {
            first_name: "Jo".to_owned(),
            last_name: "Doe".to_owned(),
            ..Name::default()
        }),
        addresses: Some(Vec::new()),
        credit_cards: Some(Vec::new()),
        ..UpdateCustomer::default()
    };
    let id = created.customer.customer_id().clone();
    let updated = Customer::update(Some(&created.customer), &id, bare, Some(1), asked(), &vault)
        .unwrap()
        .unwrap();
    [created, updated]
        .iter()
        .map(|change| event::cloud_event(change).unwrap())
        .collect()
}

#[test]
fn the_committed_schema_is_what_the_code_says() {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../schema/events/customer-change-event.v1.json"
        );
        std::fs::write(path, event::event_json_schema()).unwrap();
        return;
    }
    assert!(
        COMMITTED == event::event_json_schema(),
        "schema/events/customer-change-event.v1.json is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem-accounts --test event_contract`"
    );
}

#[test]
fn every_version_ever_published_is_read() {
    for sample in event_contract::samples("customer-change-event") {
        let read = audit::read_customer(&sample.message)
            .unwrap_or_else(|refused| panic!("{}: {refused}", sample.name));
        let read = serde_json::to_value(read).unwrap();
        assert_eq!(&read, sample.expected("accounts"), "{}", sample.name);
        // What a later version adds is ignored.
        let more = sample.with_body(|body| {
            body["loyalty"] = json!({"points": 7});
            body["name"]["nickname"] = json!("J");
        });
        let read = serde_json::to_value(audit::read_customer(&more).unwrap()).unwrap();
        assert_eq!(&read, sample.expected("accounts"), "{}", sample.name);
    }
}

#[test]
fn the_schema_breaks_no_reader_or_writer_of_its_version() {
    event_contract::assert_compatible("customer-change-event", &event::event_json_schema());
}

#[test]
fn every_event_keeps_the_committed_schema() {
    let schema: Value = serde_json::from_str(COMMITTED).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for event in events() {
        let body: Value = serde_json::from_str(&event.data).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&body)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?} in {body:#}");
    }
}

#[test]
fn the_schema_refuses_a_body_without_what_readers_need() {
    let schema: Value = serde_json::from_str(COMMITTED).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let body: Value = serde_json::from_str(&events()[0].data).unwrap();
    for field in ["id", "revision", "changeType", "changedAt", "changedBy"] {
        let mut less = body.clone();
        less.as_object_mut().unwrap().remove(field);
        assert!(!validator.is_valid(&less), "{field} is not required");
    }
    let mut more = body.clone();
    more["somethingNew"] = json!({"a": 1});
    more["name"]["nickname"] = json!("J");
    assert!(validator.is_valid(&more), "new fields must be allowed");
}

#[test]
fn the_envelope_says_what_the_contract_fixes() {
    for event in events() {
        assert_eq!(event.source, "/accounts");
        assert_eq!(event.kind, "CustomerChangeEvent");
        assert_eq!(event.subject, "123456");
        assert_eq!(
            event.data_schema,
            "urn:tandem:schema:customer-change-event:v1"
        );
        assert!(event.traceparent.is_some());
        let body = CustomerChangeEvent::read(&event).unwrap();
        assert_eq!(event.time, body.changed_at.into());
    }
}

#[test]
fn a_body_is_flat_and_tells_what_changed() {
    let bodies: Vec<Value> = events()
        .iter()
        .map(|event| serde_json::from_str(&event.data).unwrap())
        .collect();
    assert_eq!(bodies[0]["changeType"], "CREATED");
    assert_eq!(bodies[0]["revision"], 1);
    assert_eq!(bodies[0]["name"]["lastName"], "Doe");
    assert_eq!(bodies[0]["addresses"][0]["type"], "SHIPPING_ALTERNATE");
    assert_eq!(bodies[0]["creditCards"][0]["last4"], "0000");
    assert!(bodies[0]["creditCards"][0]["sealedNumber"].is_string());
    assert_eq!(
        bodies[0]["changedFields"],
        json!(["name", "contact", "addresses", "creditCards"])
    );
    assert_eq!(bodies[1]["changeType"], "UPDATED");
    assert_eq!(bodies[1]["changedBy"], "tests");
    assert_eq!(
        bodies[1]["changedFields"],
        json!(["name", "addresses", "creditCards"])
    );
}

#[test]
fn unknown_fields_are_ignored_and_contradictions_refused() {
    let event = events().remove(0);
    let with = |change: fn(&mut Value)| {
        let mut body: Value = serde_json::from_str(&event.data).unwrap();
        change(&mut body);
        CustomerChangeEvent::read(&CloudEvent {
            data: body.to_string(),
            ..event.clone()
        })
    };
    assert!(with(|body| body["nickname"] = json!("J")).is_ok());
    assert!(matches!(
        with(|body| body["id"] = json!("7")),
        Err(UnreadableEvent::Subject { .. })
    ));
    assert!(matches!(
        with(|body| body["revision"] = json!(0)),
        Err(UnreadableEvent::Revision(0))
    ));
    assert!(matches!(
        with(|body| body["name"] = json!(null)),
        Err(UnreadableEvent::Body(_))
    ));
    let other = CloudEvent {
        kind: "OrderChangeEvent".to_owned(),
        ..event.clone()
    };
    assert!(matches!(
        CustomerChangeEvent::read(&other),
        Err(UnreadableEvent::Type(_))
    ));
}
