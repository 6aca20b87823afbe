//! Documents that a request names by their hash, on every transport.

use super::sockets::Socket;
use super::*;

/// The two ways to name a document: GraphQL over HTTP's and Apollo's.
fn by_name(hash: &str) -> [Value; 2] {
    [
        json!({ "documentId": format!("sha256:{hash}") }),
        json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash}}}),
    ]
}

fn over_socket(port: u16, payload: &Value) -> Value {
    let mut socket = Socket::ready(port);
    socket.say(&json!({"id": "1", "type": "subscribe", "payload": payload}));
    socket.hear()
}

fn over_events(port: u16, payload: &Value) -> String {
    graphql_with(port, &[("accept", "text/event-stream")], payload).body
}

#[test]
fn what_was_sent_once_may_be_named_over_every_transport() {
    let tandem = Tandem::start();
    let query = "{ __typename # named \n }";
    let hash = tandem_front_door::graphql::hash(query);
    let named = &by_name(&hash)[1];
    for (name, port) in ports(&tandem) {
        let unknown = over_socket(port, named);
        assert_eq!(unknown["type"], "error", "{name}: {unknown}");
        assert_eq!(unknown["payload"][0]["message"], "PersistedQueryNotFound");
        let mut with_text = named.clone();
        with_text["query"] = json!(query);
        let kept = over_socket(port, &with_text);
        assert_eq!(
            kept["payload"]["data"]["__typename"], "Query",
            "{name}: {kept}"
        );
        let again = over_socket(port, named);
        assert_eq!(
            again["payload"]["data"]["__typename"], "Query",
            "{name}: {again}"
        );
        let events = over_events(port, named);
        assert!(
            events.contains(r#"{"__typename":"Query"}"#),
            "{name}: {events}"
        );
        // A document whose hash does not match is neither stored nor executed.
        let mut wrong = by_name(&tandem_front_door::graphql::hash("{ a }"))[1].clone();
        wrong["query"] = json!(query);
        assert_eq!(
            graphql_with(port, &[], &wrong).code(),
            "BAD_USER_INPUT",
            "{name}"
        );
    }
}

#[test]
fn where_only_trusted_documents_run_no_transport_runs_others() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/queries/manifest.json");
    let tandem = Tandem::builder()
        .env("TANDEM_TRUSTED_DOCUMENTS", manifest)
        .start();
    let text = std::fs::read_to_string(manifest).unwrap();
    let known: Value = serde_json::from_str(&text).unwrap();
    let operations = known["operations"].as_array().unwrap();
    let customers = operations
        .iter()
        .find(|one| one["name"] == "Customers")
        .unwrap();
    let hash = customers["id"]
        .as_str()
        .unwrap()
        .trim_start_matches("sha256:");
    let port = tandem.gateway;
    for mut named in by_name(hash) {
        named["variables"] = json!({"first": 1});
        let answer = over_socket(port, &named);
        assert!(
            answer["payload"]["data"]["customers"].is_object(),
            "{answer}"
        );
        let events = over_events(port, &named);
        assert!(events.contains("\"customers\""), "{events}");
        assert_eq!(graphql_with(port, &[], &named).status, 200);
    }
    let other = json!({"query": "{ __typename }"});
    let refused = over_socket(port, &other);
    assert_eq!(refused["type"], "error", "{refused}");
    assert_eq!(
        refused["payload"][0]["extensions"]["code"], "FORBIDDEN",
        "{refused}"
    );
    let events = over_events(port, &other);
    assert!(
        events.contains("FORBIDDEN") && !events.contains("\"data\":{"),
        "{events}"
    );
    // Nor is a document executed that is sent together with the hash of a trusted one.
    for mut both in by_name(hash) {
        both["query"] = json!("{ __schema { types { name } } }");
        let refused = over_socket(port, &both);
        assert_eq!(refused["type"], "error", "{refused}");
        let events = over_events(port, &both);
        let answer = graphql_with(port, &[], &both).json();
        assert!(answer["errors"].is_array(), "{answer}");
        for told in [refused.to_string(), events, answer.to_string()] {
            assert!(!told.contains("__Schema"), "{told}");
        }
    }
}
