//! The document equals the committed one and describes what the services write.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use tandem_event_path::{claims::Claim, data_keys::publication, signing::ReplacedKey};

use super::*;

#[test]
fn the_committed_document_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/asyncapi.json");
    let made = document().unwrap();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == made,
        "schema/asyncapi.json is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem --bin tandem asyncapi`"
    );
}

#[test]
fn every_header_and_field_that_is_written_is_described() {
    let document: Value = serde_json::from_str(&document().unwrap()).unwrap();
    let messages = document["components"]["messages"].as_object().unwrap();
    for (name, message) in messages {
        for (header, schema) in message["headers"]["properties"].as_object().unwrap() {
            assert_ne!(schema["description"], "", "{name} {header}");
        }
    }
    let fields = |name: &str| {
        let properties = messages[name]["payload"]["properties"].as_object();
        properties.unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let written = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let key = format!("{}=", "A".repeat(43));
    let claim = Claim {
        verifying_keys: vec![key.parse().unwrap()],
        signed_from: [("topic".to_owned(), [(0, 1)].into())].into(),
        replaced_keys: vec![ReplacedKey {
            key: key.parse().unwrap(),
            before: BTreeMap::new(),
        }],
        number: 1,
        ..Claim::default()
    };
    let claimed = serde_json::to_value(claim).unwrap();
    assert_eq!(fields("Claim"), written(&claimed));
    let key = publication("topic", "1", Some("v1.x")).payload.unwrap();
    assert_eq!(
        fields("DataKey"),
        written(&serde_json::from_str(&key).unwrap())
    );
}

#[test]
fn no_reference_leads_nowhere() {
    let document: Value = serde_json::from_str(&document().unwrap()).unwrap();
    let text = document.to_string();
    assert!(!text.contains("$defs"));
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
