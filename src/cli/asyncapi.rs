//! Makes the AsyncAPI 3 document of everything on the topics (schema/asyncapi.json) from the code that writes them.
//!
//! See <https://www.asyncapi.com/docs/reference/specification/v3.0.0>. Payloads use AsyncAPI's own schemas, which are
//! JSON Schema of draft 7. The events' schemas are included, and their definitions become definitions of the document.

use serde_json::{Map, Value, json};
use tandem_accounts::domain::event as customers;
use tandem_event_path::{
    dead_letter_topic::{HEADERS as DEAD_LETTER_HEADERS, dead_letter_topic},
    log_restore::RESTORED,
    signing::SIGNATURE,
};
use tandem_model::{
    cloudevents::{self, SYSTEM},
    event::CloudEvent,
    json::in_order_of_name,
};
use tandem_orders::domain::event as orders;

/// Version 1 of the customers' event. It is still read, and always will be, but no longer written.
const CUSTOMERS_V1: &str = include_str!("../../schema/events/customer-change-event.v1.json");
const BINDING: &str = "0.5.0";
/// The id of a customer or an order.
const ID: &str = "^[A-Za-z0-9_-]{1,64}$";

/// A version of an event.
struct Version<'a> {
    /// Its name in the document.
    name: &'a str,
    kind: &'a str,
    source: &'a str,
    data_schema: &'a str,
    summary: &'a str,
    body: Value,
}

/// A topic.
struct Topic<'a> {
    name: &'a str,
    address: &'a str,
    about: String,
    writer: &'a str,
    readers: &'a [&'a str],
    messages: &'a [&'a str],
    is_compacted: bool,
}

/// The document as text.
///
/// # Errors
/// When an event's schema cannot be parsed as JSON, which is a fault of this program.
pub(super) fn document() -> anyhow::Result<String> {
    let order_schema = orders::OrderChangeEvent::json_schema()?;
    let versions = [
        Version {
            name: "CustomerChangeEventV2",
            kind: customers::TYPE,
            source: customers::SOURCE,
            data_schema: customers::DATA_SCHEMA,
            summary: "The customer's whole state after a change; what is personal is sealed with a data key of the customer's own.",
            body: serde_json::from_str(&customers::event_json_schema())?,
        },
        Version {
            name: "CustomerChangeEventV1",
            kind: customers::TYPE,
            source: customers::SOURCE,
            data_schema: "urn:tandem:schema:customer-change-event:v1",
            summary: "As version 2, with nothing sealed but the numbers of cards. Read for ever, written no more.",
            body: serde_json::from_str(CUSTOMERS_V1)?,
        },
        Version {
            name: "OrderChangeEventV1",
            kind: orders::KIND,
            source: orders::SOURCE,
            data_schema: orders::DATA_SCHEMA,
            summary: "The order's whole state after a change; address and reason are sealed with the customer's data key.",
            body: serde_json::from_str(&order_schema)?,
        },
    ];
    let mut schemas = Map::new();
    let mut messages = Map::new();
    for version in versions {
        let message = event_message(&version);
        let name = version.name;
        for (definition, schema) in definitions(name, version.body) {
            schemas.insert(definition, schema);
        }
        messages.insert(name.to_owned(), message);
    }
    for (name, message) in other_messages() {
        messages.insert(name.to_owned(), message);
    }
    let mut channels = Map::new();
    let mut operations = Map::new();
    let dead = [customers::TOPIC, orders::TOPIC].map(dead_letter_topic);
    for topic in topics(&dead) {
        channels.insert(topic.name.to_owned(), channel(&topic));
        add_operations(&topic, &mut operations);
    }
    let document = json!({
        "asyncapi": "3.0.0",
        "id": "urn:tandem",
        "info": {
            "title": "Tandem's topics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What accounts and orders write to Kafka: CloudEvents 1.0 in the Kafka protocol binding, binary content mode. A log may repeat events; the newest `revision` of each id counts. Records are signed by the service whose topic it is; readers refuse what it has not signed. Where a system has a prefix of its own (`--topic-prefix`), every address begins with it.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "localhost:9092",
                "protocol": "kafka",
                "description": "The embedded broker of `tandem up`, or Apache Kafka by --kafka-brokers.",
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    });
    Ok(format!("{:#}\n", in_order_of_name(document)))
}

fn topics(dead: &[String; 2]) -> [Topic<'_>; 5] {
    let copies = |of: &str| {
        format!(
            "Copies of what a service could not take of {of}, and what became of each: for people and other tools, never read back. Nothing is signed here; a copy has the signature of its original."
        )
    };
    [
        Topic {
            name: "customerChanges",
            address: customers::TOPIC,
            about: "Every change of every customer, kept for ever: the event store.".to_owned(),
            writer: "accounts",
            readers: &["accounts", "orders"],
            messages: &["CustomerChangeEventV2", "CustomerChangeEventV1"],
            is_compacted: false,
        },
        Topic {
            name: "customerKeys",
            address: customers::KEY_TOPIC,
            about: "The data keys of customers, wrapped with the sealing key of the services, and claims of the topics. A tombstone erases a customer, and is final.".to_owned(),
            writer: "accounts",
            readers: &["accounts", "orders"],
            messages: &["DataKey", "Erasure", "Claim"],
            is_compacted: true,
        },
        Topic {
            name: "orderChanges",
            address: orders::TOPIC,
            about: "Every change of every order, kept for ever: the event store.".to_owned(),
            writer: "orders",
            readers: &["orders"],
            messages: &["OrderChangeEventV1"],
            is_compacted: false,
        },
        Topic {
            name: "customerChangeDeadLetters",
            address: &dead[0],
            about: copies(customers::TOPIC),
            writer: "accounts and orders",
            readers: &[],
            messages: &["DeadLetter", "DeadLetterNote"],
            is_compacted: false,
        },
        Topic {
            name: "orderChangeDeadLetters",
            address: &dead[1],
            about: copies(orders::TOPIC),
            writer: "orders",
            readers: &[],
            messages: &["DeadLetter", "DeadLetterNote"],
            is_compacted: false,
        },
    ]
}

fn channel(topic: &Topic<'_>) -> Value {
    let messages: Map<String, Value> = topic
        .messages
        .iter()
        .map(|name| {
            let message = json!({"$ref": format!("#/components/messages/{name}")});
            ((*name).to_owned(), message)
        })
        .collect();
    let configuration = if topic.is_compacted {
        json!({"cleanup.policy": ["compact"]})
    } else {
        json!({"cleanup.policy": ["delete"], "retention.ms": -1})
    };
    json!({
        "address": topic.address,
        "title": topic.address,
        "description": format!("{} Written by {} alone.", topic.about, topic.writer),
        "messages": messages,
        "bindings": {"kafka": {
            "topic": topic.address,
            "topicConfiguration": configuration,
            "bindingVersion": BINDING,
        }},
        "x-written-by": topic.writer,
    })
}

fn add_operations(topic: &Topic<'_>, operations: &mut Map<String, Value>) {
    let channel = json!({"$ref": format!("#/channels/{}", topic.name)});
    let mut capital = topic.name.to_owned();
    if let Some(first) = capital.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let mut add = |service: &str, verb: &str, action: &str, summary: String| {
        let operation = json!({
            "action": action,
            "channel": channel,
            "summary": summary,
            "tags": [{"name": service}],
        });
        operations.insert(format!("{service}{verb}{capital}"), operation);
    };
    for writer in topic.writer.split(" and ") {
        let summary = format!("{writer} writes to {}", topic.address);
        add(writer, "Writes", "send", summary);
    }
    for reader in topic.readers {
        let summary = format!("{reader} reads {}", topic.address);
        add(reader, "Reads", "receive", summary);
    }
}

/// The purpose of a header.
fn about(header: &str) -> Option<&'static str> {
    Some(match header {
        "ce_specversion" => "CloudEvents' version.",
        "ce_id" => {
            "The event's id; with ce_source it is unique. Written again, an event has the same one."
        }
        "ce_source" => "The service that states it.",
        "ce_type" => "The kind of event.",
        "ce_subject" => "The aggregate's id, as the key.",
        "ce_time" => "When the change was made.",
        "ce_dataschema" => "The schema of the body, with its version.",
        "content-type" => "The body's media type.",
        "ce_traceparent" => {
            "W3C trace context of the request that made the change (CloudEvents' extension Distributed Tracing). Not signed."
        }
        SYSTEM => {
            "The identity of the system that the event is of: a UUID, made when its topics were new. Events of another system are refused."
        }
        SIGNATURE => {
            "The signature of the service whose topic it is, over topic, key, attributes and body: docs/decisions/0017-signed-events.md. On tombstones, too."
        }
        RESTORED => {
            "`true` where the log had lost the event and it is told again from the database."
        }
        _ => return None,
    })
}

/// The headers of an event, taken from those that the services write.
fn headers_of(version: &Version<'_>) -> Value {
    let sample = CloudEvent {
        id: uuid::Uuid::nil(),
        source: version.source.to_owned(),
        kind: version.kind.to_owned(),
        subject: String::new(),
        time: chrono::DateTime::UNIX_EPOCH,
        data_schema: version.data_schema.to_owned(),
        traceparent: Some(String::new()),
        data: String::new(),
    };
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, value) in cloudevents::headers(&sample) {
        let mut schema = header(name);
        let fixed = [
            "ce_specversion",
            "ce_source",
            "ce_type",
            "ce_dataschema",
            "content-type",
        ];
        if fixed.contains(&name) {
            schema["const"] = String::from_utf8_lossy(&value).into();
        }
        match name {
            "ce_time" => schema["format"] = "date-time".into(),
            "ce_id" => schema["format"] = "uuid".into(),
            _ => {}
        }
        if name != "ce_traceparent" {
            required.push(name);
        }
        properties.insert(name.to_owned(), schema);
    }
    let required: Vec<Value> = required.into_iter().map(Value::from).collect();
    for name in [SYSTEM, SIGNATURE, RESTORED] {
        properties.insert(name.to_owned(), header(name));
    }
    json!({"type": "object", "required": required, "properties": properties})
}

fn header(name: &str) -> Value {
    json!({"type": "string", "description": about(name).unwrap_or_default()})
}

/// The Kafka binding of a message with such a key.
fn keyed(description: &str, pattern: &str) -> Value {
    json!({"kafka": {
        "key": {"type": "string", "pattern": pattern, "description": description},
        "bindingVersion": BINDING,
    }})
}

fn event_message(version: &Version<'_>) -> Value {
    json!({
        "name": version.kind,
        "title": version.name,
        "summary": version.summary,
        "contentType": "application/json",
        "headers": headers_of(version),
        "payload": {"$ref": format!("#/components/schemas/{}", version.name)},
        "bindings": keyed("The aggregate's id.", ID),
    })
}

/// The messages that are not events.
fn other_messages() -> [(&'static str, Value); 5] {
    let signed = json!({
        "type": "object",
        "properties": {SIGNATURE: header(SIGNATURE), SYSTEM: header(SYSTEM)},
    });
    let of_customer = || keyed("The customer's id.", ID);
    let text = |description: &str| json!({"type": "string", "description": description});
    let letter_headers: Map<String, Value> = DEAD_LETTER_HEADERS
        .iter()
        .map(|(name, description)| ((*name).to_owned(), text(description)))
        .collect();
    let letter = json!({
        "type": "object",
        "required": ["dead-letter-reason", "dead-letter-consumer", "dead-letter-topic", "dead-letter-partition", "dead-letter-offset", "dead-letter-at"],
        "properties": letter_headers,
    });
    [
        (
            "DataKey",
            json!({
                "name": "DataKey",
                "title": "Data key",
                "summary": "The key that what is personal of a customer is sealed with. It goes ahead of what it seals.",
                "headers": signed,
                "payload": {
                    "type": "object",
                    "required": ["wrapped"],
                    "properties": {"wrapped": text("The key, sealed with the sealing key of the services (AES-256-GCM) for `data-key/<id>`.")},
                },
                "bindings": of_customer(),
            }),
        ),
        (
            "Erasure",
            json!({
                "name": "Erasure",
                "title": "Erasure",
                "summary": "A tombstone: the customer has been erased, and what their key sealed stays sealed.",
                "headers": signed,
                "payload": {"type": "null"},
                "bindings": of_customer(),
            }),
        ),
        (
            "Claim",
            json!({
                "name": "Claim",
                "title": "Claim of the topics",
                "summary": "Which system the topics belong to, and what a service's signatures are verified with. A tombstone takes it back.",
                "headers": signed,
                "payload": {
                    "type": ["object", "null"],
                    "required": ["system", "store", "sealing_key"],
                    "properties": {
                        "system": text("The system's identity: a UUID."),
                        "store": text("The identity of the store that claims."),
                        "sealing_key": text("The fingerprint of the sealing key."),
                        "verifying_keys": {
                            "type": "array",
                            "description": "Ed25519 public keys in base64, the newest first.",
                            "items": {"type": "string"},
                        },
                        "signed_from": {
                            "type": "object",
                            "description": "For each topic of the service and each partition the offset from which on every record is signed.",
                            "additionalProperties": {
                                "type": "object",
                                "additionalProperties": {"type": "integer"},
                            },
                        },
                        "replaced_keys": {
                            "type": "array",
                            "description": "Those of the keys that were replaced, each with the offset from which on nothing counts that is signed with it, for each topic and partition; 0 where none is named.",
                            "items": {
                                "type": "object",
                                "required": ["key", "before"],
                                "properties": {
                                    "key": {"type": "string"},
                                    "before": {
                                        "type": "object",
                                        "additionalProperties": {
                                            "type": "object",
                                            "additionalProperties": {"type": "integer"},
                                        },
                                    },
                                },
                            },
                        },
                        "number": {
                            "type": "integer",
                            "description": "Counts the service's claims: one that is below another of them was written before it, and does not count wherever it stands. 0 if it is not there.",
                        },
                    },
                },
                "bindings": keyed("`!claim/` and the service's name.", "^!claim/[a-z]+$"),
            }),
        ),
        (
            "DeadLetter",
            json!({
                "name": "DeadLetter",
                "title": "Dead letter",
                "summary": "What a service could not take, as it was: body and headers of the original, and why. Where that is too large, the headers here alone.",
                "headers": letter,
                "payload": {"description": "The original's body, whatever it is."},
            }),
        ),
        (
            "DeadLetterNote",
            json!({
                "name": "DeadLetterNote",
                "title": "Note on a dead letter",
                "summary": "What became of a dead letter: header dead-letter-resolution.",
                "headers": letter,
                "payload": {"type": "null"},
            }),
        ),
    ]
}

/// The schema of an event under this name, and its definitions under names with this prefix.
fn definitions(name: &str, mut schema: Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    if let Some(members) = schema.as_object_mut() {
        members.remove("$schema");
        members.remove("$id");
        if let Some(Value::Object(inner)) = members.remove("$defs") {
            for (definition, mut schema) in inner {
                relink(name, &mut schema);
                found.push((format!("{name}.{definition}"), schema));
            }
        }
    }
    relink(name, &mut schema);
    found.push((name.to_owned(), schema));
    found
}

/// Points references to the new place of the definitions. Draft 7 ignores keywords beside a reference, so the reference
/// goes into an `allOf`.
fn relink(name: &str, schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(definition) = reference.strip_prefix("#/$defs/")
            {
                let moved = json!({"$ref": format!("#/components/schemas/{name}.{definition}")});
                if members.len() == 1 {
                    *schema = moved;
                    return;
                }
                members.remove("$ref");
                members.insert("allOf".to_owned(), json!([moved]));
                return;
            }
            for member in members.values_mut() {
                relink(name, member);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                relink(name, element);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
