//! `tandem audit customer ID`: every change of a customer that the log holds, with the differences.
//!
//! It reads the topic itself, so it shows what Kafka holds and needs no service.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tandem_assembly::admin::audit::differences::{Difference, differences};
use tandem_event_path::log::{Arrival, Attention, Log as _, Offsets};
use tandem_event_path::{
    claims::claimed_signer,
    data_keys::DataKey,
    held_back::readable_ends,
    sealing::{KeyError, Sealer},
    signing::Signer,
};
use tandem_log_kafka::connection::Kafka;
use tandem_model::message::Message;
use tandem_runtime::{clock::Clock, shutdown::Shutdown};

use super::{
    reach::{KafkaPlace, Place},
    sealed::{mask_cards_at, open},
};
use crate::terminal::{json as shown_json, one_line, say, say_aside};

const TOPIC: &str = "accounts.customer.change";
const KEY_TOPIC: &str = "accounts.customer.key";
/// The signer of the records on both topics.
const ACCOUNTS: &str = "accounts";
const CLAIM_OF_ACCOUNTS: &str = "!claim/accounts";
/// How long the log may deliver nothing before its end is reached.
const SILENCE: Duration = Duration::from_secs(20);
/// How long to wait for an open transaction that hides part of the log. Most end within moments.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose audit.
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditSettings {
    #[command(subcommand)]
    subject: Subject,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    kafka: KafkaPlace,
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
}

/// The requested audit, and where to find the log and the keys.
struct Asked {
    customer: CustomerAudit,
    place: Place,
    kafka: KafkaPlace,
}

/// Prints the audit.
pub(crate) async fn run(settings: AuditSettings) -> anyhow::Result<()> {
    let Subject::Customer(customer) = settings.subject;
    let asked = Asked {
        customer,
        place: settings.place,
        kafka: settings.kafka,
    };
    let mut hidden = Hidden::default();
    let changes = changes(&asked, &mut hidden).await?;
    print(&asked.customer, &changes, &hidden)?;
    hidden.refuse()
}

/// The parts of the topics that could not be read, as sentences.
#[derive(Default)]
struct Hidden(Vec<String>);

impl Hidden {
    /// An incomplete audit is a failure.
    fn refuse(&self) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!(
            "the audit is not whole: {}. A transaction of another producer is open there, and what lies behind it cannot be read yet. Ask again when it has ended; Kafka gives it up by itself after its producer's `transaction.timeout.ms`",
            self.0.join("; ")
        )
    }
}

/// All messages with these keys that can be read, in order. Reads the whole topic.
#[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
async fn messages_of(
    log: &Kafka,
    topic: &'static str,
    keys: &[&str],
    clock: &Clock,
    hidden: &mut Hidden,
) -> anyhow::Result<Vec<Message>> {
    let looked = readable_ends(log, topic, PATIENCE, clock, |parts| {
        say_aside(&format!(
            "tandem: {topic} is held back by an open transaction, {parts}; waiting for its end"
        ));
    });
    let (ends, parts) = looked.await.context("the log cannot be read")?;
    if !parts.is_empty() {
        hidden.0.push(format!("{topic} is held back, {parts}"));
    }
    let start: Offsets = ends
        .iter()
        .map(|(partition, (low, _))| (*partition, *low))
        .collect();
    let mut left: Offsets = ends
        .iter()
        .filter(|(_, (low, high))| low < high)
        .map(|(partition, (_, high))| (*partition, *high))
        .collect();
    let tail = log.tail(topic, &start, Attention::Prompt)?;
    let mut found = Vec::new();
    while !left.is_empty() {
        let arrival = tokio::time::timeout(SILENCE, tail.next())
            .await
            .context("the log went silent before its end")??;
        let message = match arrival {
            Arrival::Record(message) => message,
            Arrival::End(partition) => {
                left.remove(&partition);
                continue;
            }
        };
        let position = message.position;
        if left
            .get(&position.partition)
            .is_some_and(|high| position.offset + 1 >= *high)
        {
            left.remove(&position.partition);
        }
        if message
            .key
            .as_deref()
            .is_some_and(|key| keys.contains(&key))
        {
            found.push(message);
        }
    }
    Ok(found)
}

/// The messages that accounts has signed, or that are older than its signatures. Reports the others.
fn signed(messages: Vec<Message>, accounts: Option<&Signer>) -> Vec<Message> {
    let mut signed = messages;
    signed.retain(|message| {
        let judged = accounts.map_or(Ok(()), |accounts| accounts.judge(ACCOUNTS, message));
        if let Err(reason) = &judged {
            say_aside(&format!(
                "tandem: {} partition {} offset {} is left out: {reason}",
                message.topic, message.position.partition, message.position.offset
            ));
        }
        judged.is_ok()
    });
    signed
}

/// The customer's data key, from what accounts has published of it. `None` without a sealing key, and when the customer
/// has been erased.
fn data_key(audit: &Asked, published: &[Message]) -> anyhow::Result<Option<DataKey>> {
    let given = audit.place.names_a_key();
    let sealer = match Sealer::from_settings(&audit.place.sealing(&audit.place.found())) {
        Ok(sealer) => sealer,
        // Without a sealing key the audit shows what is not sealed.
        Err(KeyError::Missing | KeyError::Unreadable { .. }) if !given => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // A tombstone is final, whatever comes after it.
    if published.iter().any(|message| message.payload.is_none()) {
        return Ok(None);
    }
    let Some(body) = published.last().and_then(|message| message.payload.clone()) else {
        return Ok(None);
    };
    let body: Value = serde_json::from_slice(&body).context("the data key cannot be read")?;
    let wrapped = body["wrapped"].as_str().unwrap_or_default();
    let key = DataKey::unwrap(&sealer, wrapped, &audit.customer.id)
        .context("the customer's data key does not open with this sealing key")?;
    Ok(Some(key))
}

/// The customer's events in order of revision, each once, with the differences from the previous one.
async fn changes(audit: &Asked, hidden: &mut Hidden) -> anyhow::Result<Vec<Value>> {
    let shutdown = Shutdown::new();
    let settings = audit
        .kafka
        .settings(&audit.place.found(), &audit.place)
        .await?;
    let kafka = Kafka::connect(settings, Vec::new(), &shutdown)?;
    let (id, clock) = (audit.customer.id.as_str(), shutdown.clock());
    let (claims, published): (Vec<Message>, Vec<Message>) =
        messages_of(&kafka, KEY_TOPIC, &[id, CLAIM_OF_ACCOUNTS], clock, hidden)
            .await?
            .into_iter()
            .partition(|message| message.key.as_deref() == Some(CLAIM_OF_ACCOUNTS));
    let accounts = claimed_signer(ACCOUNTS, &claims);
    let published = signed(published, accounts.as_ref());
    let messages = messages_of(&kafka, TOPIC, &[id], clock, hidden).await?;
    let messages = signed(messages, accounts.as_ref());
    let mut found: BTreeMap<i64, (Value, Map<String, Value>)> = BTreeMap::new();
    let mut key = None;
    for message in messages {
        let position = message.position;
        let body = message
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Map<String, Value>>);
        let Some(Ok(mut body)) = body else {
            say_aside(&format!(
                "tandem: partition {} offset {} cannot be read",
                position.partition, position.offset
            ));
            continue;
        };
        let revision = body
            .get("revision")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        if body.contains_key("sealed") {
            if key.is_none() {
                key = Some(data_key(audit, &published)?);
            }
            let key = key.as_ref().and_then(Option::as_ref);
            let place = format!("customer/{}/{revision}", audit.customer.id);
            open(&mut body, key, &place);
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
        event["differences"] = json!(shown_differences(&before, &body));
        changes.push(event);
        before = body;
    }
    Ok(changes)
}

/// The differences, with card numbers masked. Events of other systems and free texts may hold card numbers that are not
/// sealed.
fn shown_differences(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Difference> {
    let mut found = differences(before, after);
    for difference in &mut found {
        mask_cards_at(&difference.field, &mut difference.before);
        mask_cards_at(&difference.field, &mut difference.after);
    }
    found
}

fn print(audit: &CustomerAudit, changes: &[Value], hidden: &Hidden) -> anyhow::Result<()> {
    if audit.json {
        say(&shown_json(&serde_json::to_string_pretty(changes)?));
        return Ok(());
    }
    if changes.is_empty() {
        let id = one_line(&audit.id);
        // The parts that cannot be read may hold changes.
        say(&if hidden.0.is_empty() {
            format!("the log holds no change of customer {id}")
        } else {
            format!("what can be read of the log holds no change of customer {id}")
        });
        return Ok(());
    }
    let text = |value: &Value| match value.as_str() {
        Some(text) => one_line(text).into_owned(),
        None => one_line(&value.to_string()).into_owned(),
    };
    say(&format!(
        "{:>8}  {:<8}  {:<24}  {:<16}  event",
        "revision", "type", "changed at", "by"
    ));
    for change in changes {
        say(&format!(
            "{:>8}  {:<8}  {:<24}  {:<16}  {}",
            text(&change["revision"]),
            text(&change["type"]),
            text(&change["changedAt"]),
            text(&change["changedBy"]),
            text(&change["eventId"])
        ));
        for difference in change["differences"].as_array().into_iter().flatten() {
            let (before, after) = (text(&difference["before"]), text(&difference["after"]));
            let field = text(&difference["field"]);
            say(&format!("{:>10}{field}: {before} -> {after}", ""));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_shows_no_number_of_a_card_and_that_it_changed() {
        let body = |number: &str, name: &str| {
            let body = json!({
                "id": "4111111111111111",
                "creditCards": [{"number": number, "nameOnCard": name, "sealedNumber": "v1.abc"}],
            });
            body.as_object().cloned().unwrap_or_default()
        };
        let before = body("5500 0000 0000 0004", "Ada");
        let after = body("4111 1111 1111 1111", "Ada 4111111111111111");
        for (old, new) in [(&Map::new(), &before), (&before, &after)] {
            let found = shown_differences(old, new);
            let shown = json!(found).to_string();
            assert!(
                found.iter().any(|it| it.field == "creditCards[0].number"),
                "{shown}"
            );
            assert!(!shown.contains("v1.abc"), "{shown}");
            assert!(
                !shown.contains("5500") && !shown.contains("4111 1111"),
                "{shown}"
            );
        }
        let shown = json!(shown_differences(&before, &after)).to_string();
        assert!(!shown.contains("4111"), "{shown}");
        assert!(shown.contains("Ada ************1111"), "{shown}");
        // An id is not masked, because it is there to be found again.
        let shown = json!(shown_differences(&Map::new(), &before)).to_string();
        assert!(shown.contains("4111111111111111"), "{shown}");
    }
}
