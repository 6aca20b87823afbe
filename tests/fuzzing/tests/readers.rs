//! Everything that reads bytes from outside, with inputs that nobody thought of: none of it may panic, and what is taken is what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use serde_json::Value;
use tandem_authentication::{AuthenticationSettings, DevelopmentKey, Scopes, Verifier};
use tandem_fuzzing::Corpus;
use tandem_model::message::Message;
use tandem_service::graphql::Cursor;

/// Bodies of the samples of all events, and structured forms of them.
fn events() -> Vec<Message> {
    ["customer-change-event", "order-change-event"]
        .into_iter()
        .flat_map(tandem_event_contract::samples)
        .map(|sample| sample.message)
        .collect()
}

#[test]
fn an_event_is_read_or_refused_with_a_reason() {
    let samples = events();
    let bodies = samples.iter().filter_map(|message| message.payload.clone());
    for (at, body) in Corpus::of("events", bodies).enumerate() {
        let mut message = samples[at % samples.len()].clone();
        message.payload = Some(body);
        if at % 3 == 0 {
            message.headers = vec![(
                "content-type".to_owned(),
                b"application/cloudevents+json".to_vec(),
            )];
        }
        if let Err(rejection) = tandem_orders::replica::event::read(&message) {
            assert!(!rejection.reason.is_empty());
        }
        if let Ok(event) = tandem_model::cloudevents::read(&message) {
            let _ = tandem_accounts::domain::event::CustomerChangeEvent::read(&event);
            let _ = tandem_orders::domain::event::OrderChangeEvent::read(&event);
        }
    }
}

#[test]
fn an_events_headers_are_read_or_refused_with_a_reason() {
    let samples = events();
    let values: Vec<Vec<u8>> = samples
        .iter()
        .flat_map(|message| &message.headers)
        .map(|(_, value)| value.clone())
        .collect();
    for (at, value) in Corpus::of("values", values).enumerate() {
        let mut message = samples[at % samples.len()].clone();
        let changed = at % message.headers.len().max(1);
        if let Some(header) = message.headers.get_mut(changed) {
            header.1 = value;
        }
        let _ = tandem_model::cloudevents::read(&message);
        let _ = tandem_orders::replica::event::read(&message);
    }
}

#[test]
fn a_cursor_that_is_taken_is_written_the_same_again() {
    for input in Corpus::of("cursors", []).lines() {
        let text = String::from_utf8_lossy(&input);
        if let Ok(cursor) = Cursor::<String>::decode(&text) {
            assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
        if let Ok(cursor) = Cursor::<(i64, String)>::decode(&text) {
            assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
    }
}

#[test]
fn a_time_or_a_decimal_that_is_taken_is_written_the_same_again() {
    use tandem_model::values::Timestamp;
    for input in Corpus::of("values", []).lines() {
        let text = Value::from(String::from_utf8_lossy(&input).into_owned());
        if let Ok(time) = serde_json::from_value::<Timestamp>(text.clone()) {
            let written = serde_json::to_value(time).unwrap();
            let read: Timestamp = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(serde_json::to_value(read).unwrap(), written);
        }
    }
}

#[test]
fn only_the_token_that_was_signed_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let key = DevelopmentKey::open_or_make(folder.path()).unwrap();
    let now = 1_800_000_000;
    let scopes = Scopes::of_claim("customers:read orders:write");
    let token = key.token("ada", scopes, now, 3_600).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let verifier = verifier(&key).await;
        assert!(verifier.verify(&token, now).await.is_ok());
        for input in Corpus::of("tokens", [token.clone().into_bytes()]) {
            let text = String::from_utf8_lossy(&input);
            if verifier.verify(&text, now).await.is_ok() {
                assert_eq!(text, token);
            }
        }
    });
}

async fn verifier(key: &DevelopmentKey) -> Verifier {
    let settings = AuthenticationSettings {
        jwks: vec![key.public_keys().display().to_string()],
        issuers: vec![DevelopmentKey::ISSUER.to_owned()],
        audiences: vec![DevelopmentKey::AUDIENCE.to_owned()],
        ..AuthenticationSettings::default()
    };
    let host = std::net::Ipv4Addr::LOCALHOST.into();
    let stop = tokio_util::sync::CancellationToken::new();
    settings.verifier(host, stop).await.unwrap().unwrap()
}
