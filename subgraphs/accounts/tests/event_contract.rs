//! The producer's side of `schema/events/customer-change-event.v2.json`.
#![allow(clippy::disallowed_methods, reason = "tests date what they make")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use chrono::Utc;
use serde_json::{Value, json};
use tandem_accounts::{
    domain::{
        Address, AddressType, Asked, CardDraft, Contact, CreateCustomer, CreditCardType, Customer,
        CustomerId, Name, UpdateCustomer,
        event::{self, CustomerChangeEvent, UnreadableEvent},
    },
    encoding::{EventEncoder, PersonalData},
    vault::SealedCards,
};
use tandem_event_contract as event_contract;
use tandem_event_path::{commands::Decision, data_keys::DataKey, sealing::Sealer};
use tandem_model::seal::Key;
use tandem_model::{cloudevents, event::CloudEvent};
use uuid::Uuid;

const COMMITTED: &str = include_str!("../../../schema/events/customer-change-event.v2.json");

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
        .map(|change| {
            CustomerChangeEvent::of(change)
                .into_cloud_event(Uuid::now_v7(), change.asked.traceparent.clone())
                .unwrap()
        })
        .collect()
}

#[test]
fn the_committed_schema_is_what_the_code_says() {
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../schema/events/customer-change-event.v2.json"
        );
        std::fs::write(path, event::event_json_schema()).unwrap();
        return;
    }
    assert!(
        COMMITTED == event::event_json_schema(),
        "schema/events/customer-change-event.v2.json is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem-accounts --test event_contract`"
    );
}

/// The events of a customer that is created, changed and erased, with sealed personal data.
fn sealed() -> Vec<Decision<Customer>> {
    let service = Sealer::new(&[7; 32]);
    let encoder = EventEncoder::new(service.clone(), PersonalData::Sealed);
    let vault = SealedCards::new(service);
    let asked = || Asked {
        by: "tests".to_owned(),
        at: Utc::now().into(),
        traceparent: None,
    };
    let id = CustomerId::parse("123456").unwrap();
    let create = CreateCustomer {
        id: id.clone(),
        name: Name {
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
            ..Name::default()
        },
        contact: Contact {
            primary_phone: "1".to_owned(),
            secondary_phone: None,
            email: "ada@example.org".to_owned(),
        },
        addresses: Vec::new(),
        credit_cards: Vec::new(),
    };
    let created = Customer::create(None, create, asked(), &vault).unwrap();
    let created = encoder.encode(created, Uuid::now_v7()).unwrap();
    let change = UpdateCustomer {
        name: Some(Name {
            first_name: "Augusta".to_owned(),
            last_name: "Lovelace".to_owned(),
            ..Name::default()
        }),
        ..UpdateCustomer::default()
    };
    let updated = Customer::update(Some(&created.state), &id, change, None, asked(), &vault);
    let updated = encoder
        .encode(updated.unwrap().unwrap(), Uuid::now_v7())
        .unwrap();
    let erased = Customer::erase(Some(&updated.state), &id, asked()).unwrap();
    let erased = encoder.encode(erased.unwrap(), Uuid::now_v7()).unwrap();
    assert_eq!(Customer::erase(Some(&erased.state), &id, asked()), Ok(None));
    vec![created, updated, erased]
}

#[test]
fn a_sealed_event_shows_nothing_of_the_person_and_opens_with_the_key_alone() {
    let told = sealed();
    let schema: Value = serde_json::from_str(COMMITTED).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for decision in &told {
        let text = &decision.event.data;
        assert!(
            !text.contains("Lovelace") && !text.contains("ada@"),
            "{text}"
        );
        let body: Value = serde_json::from_str(text).unwrap();
        assert!(validator.is_valid(&body), "{body:#}");
    }
    let companions = |number: usize| &told[number].companions;
    let wrapped = told[0].state.data_key().unwrap().to_owned();
    assert_eq!(
        companions(0).len(),
        1,
        "the key goes ahead of what it seals"
    );
    assert!(
        companions(0)[0]
            .payload
            .as_ref()
            .unwrap()
            .contains(&wrapped)
    );
    assert!(companions(1).is_empty(), "it is published once");
    assert_eq!(
        companions(2)[0].payload,
        None,
        "its tombstone goes ahead of the erasure"
    );
    let service = Sealer::new(&[7; 32]);
    let key = DataKey::unwrap(&service, &wrapped, "123456").unwrap();
    let read =
        |number: usize| CustomerChangeEvent::read(&told[number].event.clone().into()).unwrap();
    let with_key = read(1).into_customer(Key::Here(&key, &wrapped)).unwrap();
    assert_eq!(with_key, told[1].state);
    let without = read(1).into_customer(Key::Erased).unwrap();
    assert!(without.is_erased() && without.name().first_name.is_empty());
    let missing = read(1).into_customer(Key::Missing("not there"));
    assert_eq!(missing.unwrap_err().to_string(), "not there");
    let last = read(2).into_customer(Key::Erased).unwrap();
    assert_eq!(last, told[2].state);
    assert!(last.is_erased() && last.data_key().is_none());
}

#[test]
fn every_version_ever_published_is_read() {
    for sample in event_contract::samples("customer-change-event") {
        let customer = |message| {
            let event = cloudevents::read(message).unwrap();
            let read = CustomerChangeEvent::read(&event)
                .unwrap_or_else(|refused| panic!("{}: {refused}", sample.name));
            serde_json::to_value(read.into_customer(Key::Erased).unwrap()).unwrap()
        };
        let read = customer(&sample.message);
        assert_eq!(&read, sample.expected("accounts"), "{}", sample.name);
        // Fields that a later version adds are ignored.
        let more = sample.with_body(|body| {
            body["loyalty"] = json!({"points": 7});
            if body["name"].is_object() {
                body["name"]["nickname"] = json!("J");
            }
        });
        let read = customer(&more);
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
            "urn:tandem:schema:customer-change-event:v2"
        );
        assert!(event.traceparent.is_some());
        let body = CustomerChangeEvent::read(&event.clone().into()).unwrap();
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
        let changed = CloudEvent {
            data: body.to_string(),
            ..event.clone()
        };
        CustomerChangeEvent::read(&changed.into())
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
        Err(UnreadableEvent::Nobody)
    ));
    assert!(matches!(
        with(|body| body["name"] = json!(7)),
        Err(UnreadableEvent::Body(_))
    ));
    let other = CloudEvent {
        kind: "OrderChangeEvent".to_owned(),
        ..event.clone()
    };
    assert!(matches!(
        CustomerChangeEvent::read(&other.into()),
        Err(UnreadableEvent::Type(_))
    ));
}
