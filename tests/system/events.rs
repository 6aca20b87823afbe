//! `tandem events tail`: what people and programs see of the topics, and what neither may see.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Process, Signal, Tandem,
    ground::{CUSTOMERS, Ground, KEYS, Log, ORDERS, Raw},
    poll, tandem_command,
};

const LIMIT: Duration = Duration::from_secs(120);
const SIGNATURE: &str = "ce_tandemsignature";
const DEAD_LETTERS: &str = "accounts.customer.change.DLT";
/// The card number of a test's customer.
const CARD: &str = "4111111111111111";

fn begin(data_directory: &Path, words: &[&str]) -> Process {
    Process::start(
        tandem_command()
            .args(["events", "tail", "--data-dir"])
            .arg(data_directory)
            .args(words),
    )
}

/// The output lines of a command that succeeded.
#[track_caller]
fn ended(mut process: Process) -> Vec<Value> {
    let status = process.wait_for_end(LIMIT);
    let (output, errors) = process.all_output();
    assert!(status.success(), "{output}{errors}");
    assert!(!output.contains(CARD), "{output}");
    let is_harmless = |any: char| !any.is_control() || any == '\n';
    assert!(output.chars().all(is_harmless), "{output:?}");
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn tail(tandem: &Tandem, words: &[&str]) -> Vec<Value> {
    let mut all = vec!["--until-end"];
    all.extend(words);
    ended(begin(tandem.data_dir(), &all))
}

/// A command that follows new records.
fn following(tandem: &Tandem, words: &[&str]) -> Process {
    let process = begin(tandem.data_dir(), words);
    poll("the command follows the topics", || {
        process.errors().contains("Ctrl-C").then_some(())
    });
    process
}

#[track_caller]
fn of<'a>(shown: &'a [Value], topic: &str, key: &str) -> &'a Value {
    let found = shown
        .iter()
        .find(|line| line["topic"] == topic && line["key"] == key);
    found.unwrap_or_else(|| panic!("{topic} {key}: {shown:#?}"))
}

fn forged(raw: &Raw, is_signed: bool) -> Raw {
    let mut forged = raw.clone();
    let body = String::from_utf8(forged.payload.take().unwrap()).unwrap();
    let changed = body.replacen("\"revision\":1", "\"revision\":50", 1);
    assert_ne!(changed, body);
    forged.payload = Some(changed.into_bytes());
    forged
        .headers
        .retain(|(name, _)| is_signed || name != SIGNATURE);
    forged
        .headers
        .push(("ce_note".to_owned(), b"\x1b[2J".to_vec()));
    forged
}

#[test]
fn everything_on_the_topics_is_shown_decoded_opened_and_judged() {
    shown(&Ground::embedded().asking_for_signatures());
}

#[test]
fn everything_on_the_topics_is_shown_on_real_servers() {
    require!(mongod, kafka);
    shown(&Ground::on_real_servers().asking_for_signatures());
}

fn shown(ground: &Ground) {
    let client = Client::new();
    let tandem = ground.start();
    tandem.customer(&client, "1");
    let order = tandem.order(&client, "1");
    tandem.published(&client);

    let lines = tail(&tandem, &[]);
    let customer = of(&lines, CUSTOMERS, "1");
    let good = json!({"verdict": "good"});
    assert_eq!(customer["signature"], good, "{customer:#}");
    assert_eq!(customer["kind"], "CustomerChangeEvent");
    assert_eq!(
        (&customer["change"], &customer["revision"]),
        (&json!("CREATED"), &json!(1))
    );
    assert_eq!(
        (&customer["subject"], &customer["seal"]),
        (&json!("1"), &json!("opened"))
    );
    assert_eq!(customer["body"]["name"]["lastName"], "Lovelace");
    let card = &customer["body"]["creditCards"][0];
    assert_eq!(
        (&card["last4"], &card["sealedNumber"]),
        (&json!("1111"), &json!("(sealed)"))
    );
    assert!(customer["size"].as_u64() > Some(500) && customer["offset"].is_i64());
    let placed = of(&lines, ORDERS, &order);
    assert_eq!(
        (&placed["signature"], &placed["seal"]),
        (&good, &json!("opened"))
    );
    let key = of(&lines, KEYS, "1");
    assert_eq!(
        (&key["kind"], &key["signature"], &key["body"]["wrapped"]),
        (&json!("DataKey"), &good, &json!("(sealed)"))
    );
    let claim = of(&lines, KEYS, "!claim/accounts");
    assert_eq!(
        (&claim["kind"], &claim["signature"]),
        (&json!("Claim"), &good)
    );

    // Without the data directory there is neither a sealing key nor orders' verifying key.
    let elsewhere = tempfile::tempdir().unwrap();
    let kafka = tandem.bootstrap_servers();
    let words = ["--until-end", "--kafka-brokers", &kafka];
    let strangers = ended(begin(elsewhere.path(), &words));
    let customer = of(&strangers, CUSTOMERS, "1");
    assert_eq!(
        (&customer["signature"], &customer["seal"]),
        (&good, &json!("closed"))
    );
    assert_eq!(customer["body"]["sealed"], "(sealed)");
    assert!(!json!(strangers).to_string().contains("Lovelace"));
    let placed = of(&strangers, ORDERS, &order);
    assert_eq!(placed["signature"]["verdict"], "unverified");

    some_of_it(&tandem, of(&lines, CUSTOMERS, "1"));
    for topic in [CUSTOMERS, KEYS, ORDERS] {
        is_as_documented(&Log::of(&tandem), topic);
    }
    forgeries(&tandem);
    is_as_documented(&Log::of(&tandem), DEAD_LETTERS);
    as_it_comes(&tandem, &client);
}

/// Every record of a topic must match one of the messages in the AsyncAPI document.
fn is_as_documented(log: &Log, topic: &str) {
    let document: Value = serde_json::from_str(include_str!("../../schema/asyncapi.json")).unwrap();
    let channels = document["channels"].as_object().unwrap();
    let channel = channels
        .values()
        .find(|channel| channel["address"] == topic)
        .unwrap();
    let messages: Vec<&Value> = channel["messages"]
        .as_object()
        .unwrap()
        .keys()
        .map(|name| &document["components"]["messages"][name])
        .collect();
    let records = log.read(topic);
    assert!(!records.is_empty(), "{topic}");
    for raw in records {
        let mut messages = messages.iter();
        let is_one = messages.any(|message| is_message(&raw, message, &document));
        assert!(is_one, "{raw:#?}");
    }
}

fn is_message(raw: &Raw, message: &Value, document: &Value) -> bool {
    let headers = &message["headers"];
    // A copy also has the headers of its original, which may be any.
    let is_known = |name: &str| {
        headers["properties"].get(name).is_some()
            || raw.header("dead-letter-topic").is_some() && !name.starts_with("dead-letter")
    };
    let required = headers["required"].as_array().into_iter().flatten();
    let body = match &raw.payload {
        None => Value::Null,
        Some(body) => serde_json::from_slice(body).unwrap(),
    };
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "components": document["components"],
        "allOf": [message["payload"]],
    });
    raw.headers.iter().all(|(name, _)| is_known(name))
        && required
            .filter_map(Value::as_str)
            .all(|name| raw.header(name).is_some())
        && jsonschema::validator_for(&schema).unwrap().is_valid(&body)
}

/// The flags that filter the output.
fn some_of_it(tandem: &Tandem, customer: &Value) {
    let published = customer["published"].as_str().unwrap();
    let since = tail(tandem, &["--topic", CUSTOMERS, "--since", published]);
    assert_eq!(since.len(), 1, "{since:#?}");
    for long_ago in [
        "1969-12-31T23:59:59.999Z",
        "1900-01-01T00:00:00Z",
        "1000000h",
    ] {
        let all = tail(tandem, &["--topic", CUSTOMERS, "--since", long_ago]);
        assert_eq!(all, since, "{long_ago}");
    }
    let later = tail(tandem, &["--since", "2100-01-01T00:00:00Z"]);
    assert_eq!(later, Vec::<Value>::new());
    assert_eq!(tail(tandem, &["--since", "24h", "--limit", "2"]).len(), 2);
    let short = tail(tandem, &["--key", "1", "--topic", KEYS, "--short"]);
    assert_eq!(short.len(), 1, "{short:#?}");
    assert!(short[0].get("body").is_none(), "{short:#?}");
    let mut wrong = begin(tandem.data_dir(), &["--topic", "customers"]);
    assert!(!wrong.wait_for_end(LIMIT).success());
    assert!(wrong.all_output().1.contains(CUSTOMERS));
}

/// Records that no authorized service signed, and the dead letters that they become.
fn forgeries(tandem: &Tandem) {
    let log = Log::of(tandem);
    let genuine = log.read(CUSTOMERS).remove(0);
    log.write(
        CUSTOMERS,
        &[forged(&genuine, true), forged(&genuine, false)],
    );
    let refused: Vec<String> = tail(tandem, &["--topic", CUSTOMERS])
        .into_iter()
        .filter(|line| line["signature"]["verdict"] == "refused")
        .map(|line| line["signature"]["reason"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("of another record"), "{refused:?}");
    assert!(refused[1].contains("is missing"), "{refused:?}");
    let letters = poll("both services set both aside", || {
        let letters = tail(tandem, &["--topic", DEAD_LETTERS]);
        (letters.len() >= 4).then_some(letters)
    });
    for letter in letters {
        assert_eq!(letter["signature"]["verdict"], "refused", "{letter:#}");
        let reason = letter["deadLetter"]["reason"].as_str().unwrap();
        assert!(reason.contains(SIGNATURE), "{reason}");
    }
}

fn as_it_comes(tandem: &Tandem, client: &Client) {
    let waiting = following(tandem, &["--key", "2", "--limit", "2"]);
    let without_end = following(tandem, &[]);
    tandem.customer(client, "2");
    let lines = ended(waiting);
    assert_eq!(of(&lines, CUSTOMERS, "2")["seal"], "opened");
    assert_eq!(of(&lines, KEYS, "2")["kind"], "DataKey");
    poll("the other one has shown it, too", || {
        without_end.output().contains("CREATED").then_some(())
    });
    let mut without_end = without_end;
    without_end.signal(Signal::INT);
    assert!(without_end.wait_for_end(LIMIT).success());
    let (output, _) = without_end.all_output();
    for line in output.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}
