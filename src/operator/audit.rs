//! `tandem audit customer ID`: every change of a customer as the log holds it, with the differences.
//!
//! It reads the topic itself, so it shows what Kafka holds and needs no service.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tandem_kit::{
    data_keys::DataKey,
    kafka::{
        connection::Kafka,
        message::Message,
        settings::KafkaSettings,
        tail::{self, LogTail, Offsets},
    },
    sealing::{KeyError, Sealer, SealingSettings},
    shutdown::Shutdown,
};

const TOPIC: &str = "accounts.customer.change";
const KEY_TOPIC: &str = "accounts.customer.key";
/// How long the log may be silent before its end.
const SILENCE: Duration = Duration::from_secs(20);
/// What differs with every change and says nothing of the customer.
const ENVELOPE: [&str; 6] = [
    "revision",
    "changeType",
    "changedAt",
    "changedBy",
    "changedFields",
    "updatedAt",
];

/// Whose audit.
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditSettings {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Clone, Debug, Subcommand)]
enum Subject {
    /// Every change of a customer, oldest first.
    Customer(CustomerAudit),
}

#[derive(Args, Clone, Debug)]
struct CustomerAudit {
    /// The customer's id.
    id: String,

    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// Data directory of a system that `tandem up` runs: its sealing key is used unless one is given. Without one, what is
    /// sealed is not shown.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem"
    )]
    data_dir: PathBuf,

    #[command(flatten)]
    sealing: SealingSettings,

    #[command(flatten)]
    kafka: KafkaSettings,
}

/// Prints the audit.
pub(crate) async fn run(settings: AuditSettings) -> anyhow::Result<()> {
    let Subject::Customer(audit) = settings.subject;
    let changes = changes(&audit).await?;
    print(&audit, &changes)
}

/// All messages of one key, in order. It reads the whole topic.
async fn messages_of(
    kafka: &Kafka,
    topic: &'static str,
    key: &str,
) -> anyhow::Result<Vec<Message>> {
    let ends = tail::ends(kafka, topic)
        .await
        .context("the log cannot be read")?;
    let start: Offsets = ends
        .iter()
        .map(|(partition, (low, _))| (*partition, *low))
        .collect();
    let mut left: Offsets = ends
        .iter()
        .filter(|(_, (low, high))| low < high)
        .map(|(partition, (_, high))| (*partition, *high))
        .collect();
    let log = LogTail::open(kafka, topic, &start)?;
    let mut found = Vec::new();
    while !left.is_empty() {
        let message = tokio::time::timeout(SILENCE, log.next())
            .await
            .context("the log went silent before its end")??;
        let position = message.position;
        if left
            .get(&position.partition)
            .is_some_and(|high| position.offset + 1 >= *high)
        {
            left.remove(&position.partition);
        }
        if message.key.as_deref() == Some(key) {
            found.push(message);
        }
    }
    Ok(found)
}

/// The customer's data key: `None` without a sealing key, and when the customer has been erased.
async fn data_key(audit: &CustomerAudit, kafka: &Kafka) -> anyhow::Result<Option<DataKey>> {
    let mut sealing = audit.sealing.clone();
    let file = audit.data_dir.join("sealing.key");
    if sealing.sealing_key.is_none() && sealing.sealing_key_file.is_none() && file.exists() {
        sealing.sealing_key_file = Some(file);
    }
    let sealer = match Sealer::from_settings(&sealing) {
        Ok(sealer) => sealer,
        Err(KeyError::Missing) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let published = messages_of(kafka, KEY_TOPIC, &audit.id).await?;
    // A tombstone is final, whatever comes after it.
    if published.iter().any(|message| message.payload.is_none()) {
        return Ok(None);
    }
    let Some(body) = published.last().and_then(|message| message.payload.clone()) else {
        return Ok(None);
    };
    let body: Value = serde_json::from_slice(&body).context("the data key cannot be read")?;
    let wrapped = body["wrapped"].as_str().unwrap_or_default();
    let key = DataKey::unwrap(&sealer, wrapped, &audit.id)
        .context("the customer's data key does not open with this sealing key")?;
    Ok(Some(key))
}

/// Puts what is sealed in a body in its place, if there is the key to it.
fn open(body: &mut Map<String, Value>, key: Option<&DataKey>, id: &str, revision: i64) {
    let Some(Value::String(sealed)) = body.get("sealed") else {
        return;
    };
    let opened = key
        .and_then(|key| key.open(sealed, &format!("customer/{id}/{revision}")).ok())
        .and_then(|plain| serde_json::from_slice::<Map<String, Value>>(&plain).ok());
    if let Some(person) = opened {
        body.remove("sealed");
        body.extend(person);
    }
}

/// The customer's events in order of revision, each once, with what differs from the one before.
async fn changes(audit: &CustomerAudit) -> anyhow::Result<Vec<Value>> {
    let shutdown = Shutdown::new();
    let kafka = Kafka::connect(audit.kafka.clone(), Vec::new(), &shutdown)?;
    let messages = messages_of(&kafka, TOPIC, &audit.id).await?;
    let mut found: BTreeMap<i64, (Value, Map<String, Value>)> = BTreeMap::new();
    let mut key = None;
    for message in messages {
        let position = message.position;
        let body = message
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Map<String, Value>>);
        let Some(Ok(mut body)) = body else {
            eprintln!(
                "tandem: partition {} offset {} cannot be read",
                position.partition, position.offset
            );
            continue;
        };
        let revision = body
            .get("revision")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        if body.contains_key("sealed") {
            if key.is_none() {
                key = Some(data_key(audit, &kafka).await?);
            }
            let key = key.as_ref().and_then(Option::as_ref);
            open(&mut body, key, &audit.id, revision);
        }
        let event = json!({
            "eventId": message.header("ce_id"),
            "revision": revision,
            "type": body.get("changeType"),
            "changedAt": body.get("changedAt"),
            "changedBy": body.get("changedBy"),
            "partition": position.partition,
            "offset": position.offset,
        });
        found.entry(revision).or_insert((event, body));
    }
    shutdown.request("the audit is read");
    let mut before = Map::new();
    let mut changes = Vec::new();
    for (mut event, body) in found.into_values() {
        let mut differences = Vec::new();
        compare(
            "",
            &Value::Object(before),
            &Value::Object(body.clone()),
            &mut differences,
        );
        event["differences"] = Value::Array(differences);
        changes.push(event);
        before = body;
    }
    Ok(changes)
}

/// Adds `{field, before, after}` for each value that differs. What is sealed is never shown.
fn compare(path: &str, before: &Value, after: &Value, differences: &mut Vec<Value>) {
    if before == after || ENVELOPE.contains(&path) {
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let value = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                compare(&below(name), &value(old), &value(new), differences);
            }
        }
        (Value::Null, Value::Object(new)) => {
            for (name, value) in new {
                compare(&below(name), &Value::Null, value, differences);
            }
        }
        (Value::Array(_) | Value::Null, Value::Array(new)) => {
            let none = Vec::new();
            let old = before.as_array().unwrap_or(&none);
            for place in 0..old.len().max(new.len()) {
                let value = |list: &[Value]| list.get(place).cloned().unwrap_or_default();
                compare(
                    &format!("{path}[{place}]"),
                    &value(old),
                    &value(new),
                    differences,
                );
            }
        }
        _ if path == "sealed" || path.ends_with("sealedNumber") => {
            differences.push(json!({"field": path, "before": "(sealed)", "after": "(sealed)"}));
        }
        _ => differences.push(json!({"field": path, "before": before, "after": after})),
    }
}

#[allow(clippy::print_stdout)] // the command's answer
fn print(audit: &CustomerAudit, changes: &[Value]) -> anyhow::Result<()> {
    if audit.json {
        println!("{}", serde_json::to_string_pretty(changes)?);
        return Ok(());
    }
    if changes.is_empty() {
        println!("the log holds no change of customer {}", audit.id);
        return Ok(());
    }
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    println!(
        "{:>8}  {:<8}  {:<24}  {:<16}  event",
        "revision", "type", "changed at", "by"
    );
    for change in changes {
        println!(
            "{:>8}  {:<8}  {:<24}  {:<16}  {}",
            change["revision"],
            text(&change["type"]),
            text(&change["changedAt"]),
            text(&change["changedBy"]),
            text(&change["eventId"])
        );
        for difference in change["differences"].as_array().into_iter().flatten() {
            let (before, after) = (text(&difference["before"]), text(&difference["after"]));
            println!(
                "{:>10}{}: {before} -> {after}",
                "",
                text(&difference["field"])
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_each_field_that_changed() {
        let before =
            json!({"name": {"firstName": "Ada"}, "addresses": [{"city": "London"}], "revision": 1});
        let after = json!({"name": {"firstName": "Ada", "suffix": "Sr."}, "addresses": [{"city": "Ockham"}, {"city": "Paris"}], "revision": 2});
        let mut found = Vec::new();
        compare("", &before, &after, &mut found);
        let fields: Vec<_> = found.iter().map(|it| it["field"].clone()).collect();
        assert_eq!(
            fields,
            ["addresses[0].city", "addresses[1].city", "name.suffix"]
        );
    }

    #[test]
    fn a_sealed_number_is_never_shown() {
        let mut found = Vec::new();
        compare(
            "",
            &json!({"creditCards": [{"sealedNumber": "v1.a"}]}),
            &json!({"creditCards": [{"sealedNumber": "v1.b"}]}),
            &mut found,
        );
        assert!(!found[0].to_string().contains("v1."), "{found:?}");
    }
}
