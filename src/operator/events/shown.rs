//! How a record is shown. Card numbers are never shown, and sealed data only where the key opens it.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use tandem_assembly::admin::audit::differences::without_sealed;
use tandem_model::{cloudevents, message::Message};

use super::{
    CUSTOMERS, KEYS, ORDERS, Source,
    trust::{Known, Trust, Verdict},
};
use crate::{
    operator::sealed::{mask_cards, open, without_cards},
    terminal::one_line,
};

const RESTORED: &str = "ce_tandemrestored";

/// A decoded record.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<String>,
    /// When the log received it, by the clock of the publisher or of the log.
    published: Option<String>,
    /// Size of key, headers and body in bytes.
    size: usize,
    /// The event's type. For records that are not events: `DataKey`, `Erasure`, `Claim`, or `Note` (the outcome of a
    /// dead letter).
    kind: String,
    change: Option<String>,
    revision: Option<i64>,
    subject: Option<String>,
    time: Option<String>,
    id: Option<String>,
    source: Option<String>,
    /// Published again from the database, because the log had lost it.
    is_restored: bool,
    signature: Signature,
    /// `none`, `opened` or `closed`.
    seal: &'static str,
    /// Why the seal could not be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<DeadLetter>,
    /// Why the record is not an event that a service would accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
}

#[derive(Clone, Debug, Serialize)]
struct Signature {
    /// `good`, `unsigned`, `unverified` or `refused`.
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<Verdict> for Signature {
    fn from(verdict: Verdict) -> Self {
        let (verdict, reason) = match verdict {
            Verdict::Good => ("good", None),
            Verdict::Unsigned(reason) => ("unsigned", Some(reason)),
            Verdict::Unverified(reason) => ("unverified", Some(reason)),
            Verdict::Refused(reason) => ("refused", Some(reason)),
        };
        Self { verdict, reason }
    }
}

/// The content of a dead letter's headers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter {
    reason: Option<String>,
    consumer: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<String>,
    /// Whether the content of the message was left out.
    is_cut: bool,
}

impl DeadLetter {
    fn of(message: &Message) -> Self {
        let text = |name: &str| {
            message
                .header(name)
                .map(|text| without_cards(text, message.key.as_deref()))
        };
        Self {
            reason: text("dead-letter-reason"),
            consumer: text("dead-letter-consumer"),
            partition: text("dead-letter-partition").and_then(|it| it.parse().ok()),
            offset: text("dead-letter-offset").and_then(|it| it.parse().ok()),
            at: text("dead-letter-at"),
            resolution: text("dead-letter-resolution"),
            is_cut: message.header("dead-letter-cut").is_some(),
        }
    }
}

/// The record as it was on its own topic, because the signature covers that form.
fn original(source: Source, message: &Message, letter: Option<&DeadLetter>) -> Message {
    let mut original = message.clone();
    // Only a reader adds these marks in memory. In the log they are a forgery.
    original.headers.retain(|(name, _)| {
        ![cloudevents::READ_BY, cloudevents::REFUSED]
            .iter()
            .any(|mark| name.eq_ignore_ascii_case(mark))
    });
    source.of.clone_into(&mut original.topic);
    if let Some(letter) = letter {
        original.position.partition = letter.partition.unwrap_or(message.position.partition);
        original.position.offset = letter.offset.unwrap_or(message.position.offset);
    }
    original
}

impl Shown {
    /// Decodes a record, verifies its signature and opens its seal.
    pub(super) async fn of(source: Source, message: &Message, trust: &mut Trust) -> Self {
        trust.catch_up();
        let letter = (source.topic != source.of).then(|| DeadLetter::of(message));
        let mut original = original(source, message, letter.as_ref());
        let is_note = letter
            .as_ref()
            .is_some_and(|it| it.resolution.is_some() || it.is_cut);
        let verdict = if is_note {
            Verdict::Unsigned("a note of a service on a dead letter".to_owned())
        } else {
            trust.judge(source.of, &original)
        };
        let headers = message.headers.iter();
        let of_headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        let time = message
            .published_ms
            .and_then(DateTime::from_timestamp_millis);
        let header = |name: &str| message.header(name).map(str::to_owned);
        let mut shown = Self {
            topic: source.topic.to_owned(),
            partition: message.position.partition,
            offset: message.position.offset,
            key: message.key.clone(),
            published: time.map(in_millis),
            size: message.key.as_ref().map_or(0, String::len)
                + of_headers
                + message.payload.as_ref().map_or(0, Vec::len),
            kind: header("ce_type").unwrap_or_default(),
            change: None,
            revision: None,
            subject: header("ce_subject"),
            time: header("ce_time"),
            id: header("ce_id"),
            source: header("ce_source"),
            is_restored: message.header(RESTORED) == Some("true"),
            signature: verdict.into(),
            seal: "none",
            closed_because: None,
            dead_letter: letter,
            problem: None,
            body: None,
        };
        if source.of == KEYS {
            shown.read_key(message);
        } else if is_note {
            "Note".clone_into(&mut shown.kind);
        } else {
            if let Some(system) = trust.system() {
                let mark = (cloudevents::READ_BY.to_owned(), system.as_bytes().to_vec());
                original.headers.push(mark);
            }
            shown.read_event(source, &original, trust).await;
        }
        shown
    }

    /// Decodes a record of the topic of keys.
    fn read_key(&mut self, message: &Message) {
        let is_claim = self.key.as_ref().is_some_and(|key| key.starts_with('!'));
        let kind = match (&message.payload, is_claim) {
            (_, true) => "Claim",
            (None, false) => "Erasure",
            (Some(_), false) => "DataKey",
        };
        kind.clone_into(&mut self.kind);
        let body = message
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Value>);
        match body {
            Some(Ok(body)) => self.show_body(body),
            Some(Err(_)) => self.problem = Some("the body is not JSON".to_owned()),
            None => {}
        }
    }

    async fn read_event(&mut self, source: Source, message: &Message, trust: &mut Trust) {
        let event = match cloudevents::read(message) {
            Ok(event) => event,
            Err(rejection) => {
                self.problem = Some(without_cards(&rejection.reason, self.key.as_deref()));
                return;
            }
        };
        self.kind = event.kind;
        self.id = Some(event.id);
        self.source = Some(event.source);
        self.subject = event.subject.or(self.subject.take());
        self.time = event.time.map(in_millis).or(self.time.take());
        let mut body = match serde_json::from_str::<Map<String, Value>>(&event.data) {
            Ok(body) => body,
            Err(_) => {
                self.problem = Some("the body is no JSON object".to_owned());
                return;
            }
        };
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        self.change = text("changeType");
        self.revision = body.get("revision").and_then(Value::as_i64);
        if body.get("sealed").is_some_and(Value::is_string) {
            let (whose, aggregate) = match source.of {
                ORDERS => (text("customerId"), "order"),
                CUSTOMERS => (text("id"), "customer"),
                other => (None, other),
            };
            let place = format!(
                "{aggregate}/{}/{}",
                text("id").unwrap_or_default(),
                self.revision.unwrap_or_default()
            );
            let known = trust.key_of(&whose.unwrap_or_default()).await;
            (self.seal, self.closed_because) = match known {
                Known::Key(key) if open(&mut body, Some(&key), &place) => ("opened", None),
                Known::Key(_) => (
                    "closed",
                    Some("it does not open with the customer's data key".to_owned()),
                ),
                Known::No(reason) => ("closed", Some(reason)),
            };
        }
        self.show_body(Value::Object(body));
    }

    fn show_body(&mut self, body: Value) {
        let mut body = without_sealed(&body);
        mask_cards(&mut body);
        self.body = Some(body);
    }

    /// Shows everything but the body.
    pub(super) fn leave_out_the_body(&mut self) {
        self.body = None;
    }

    /// The record as a line of JSON.
    pub(super) fn json(&self) -> String {
        // Only texts, numbers and JSON, which can always be serialized.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record for a person: a line with the essentials, and below it any problems and the body.
    pub(super) fn text(&self, has_colours: bool) -> String {
        let paint = |colour: &str, text: &str| {
            if has_colours {
                format!("\x1b[{colour}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        let when = self.published.as_deref().or(self.time.as_deref());
        let mut kind = one_line(&self.kind).into_owned();
        if let Some(change) = &self.change {
            let _ = write!(kind, " {}", one_line(change));
        }
        if let Some(revision) = self.revision {
            let _ = write!(kind, " r{revision}");
        }
        let (colour, verdict) = match self.signature.verdict {
            "good" => ("32", "good"),
            "refused" => ("1;31", "refused"),
            other => ("33", other),
        };
        let key = self.key.as_deref().map_or("(no key)".into(), one_line);
        let mut text = format!(
            "{}  {}  {}  {}  {}  {} B",
            paint("2", &one_line(when.unwrap_or("-"))),
            paint(
                "36",
                &format!(
                    "{} {}/{}",
                    one_line(&self.topic),
                    self.partition,
                    self.offset
                )
            ),
            paint("1", &kind),
            key,
            paint(colour, verdict),
            self.size
        );
        if self.seal != "none" {
            let _ = write!(text, "  {}", self.seal);
        }
        if self.is_restored {
            text.push_str("  restored");
        }
        if let Some(subject) = self
            .subject
            .as_deref()
            .filter(|it| Some(*it) != self.key.as_deref())
        {
            let _ = write!(text, "  subject {}", one_line(subject));
        }
        let letter = self.dead_letter.as_ref();
        let asides = [
            (colour, self.signature.reason.as_deref()),
            ("31", self.problem.as_deref()),
            ("33", self.closed_because.as_deref()),
            ("31", letter.and_then(|letter| letter.reason.as_deref())),
            ("33", letter.and_then(|letter| letter.resolution.as_deref())),
        ];
        for (colour, aside) in asides {
            if let Some(aside) = aside {
                let _ = write!(text, "\n    {}", paint(colour, &one_line(aside)));
            }
        }
        if let Some(body) = &self.body {
            let _ = write!(text, "\n    {}", paint("2", &one_line(&body.to_string())));
        }
        text
    }
}

fn in_millis(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown() -> Shown {
        Shown {
            topic: CUSTOMERS.to_owned(),
            partition: 3,
            offset: 17,
            key: Some("ada\x1b[2J".to_owned()),
            published: Some("2026-11-29T17:30:01.123Z".to_owned()),
            size: 812,
            kind: "CustomerChangeEvent".to_owned(),
            change: Some("CREATED".to_owned()),
            revision: Some(1),
            subject: Some("ada\x1b[2J".to_owned()),
            time: None,
            id: None,
            source: None,
            is_restored: false,
            signature: Verdict::Refused("it is\nforged".to_owned()).into(),
            seal: "opened",
            closed_because: None,
            dead_letter: None,
            problem: None,
            body: Some(json!({"name": "\x1b]0;gone\x07"})),
        }
    }

    #[test]
    fn a_person_sees_where_what_and_whether_it_is_genuine() {
        let text = shown().text(false);
        assert_eq!(
            text,
            "2026-11-29T17:30:01.123Z  accounts.customer.change 3/17  CustomerChangeEvent CREATED r1  ada\\u{1b}[2J  refused  812 B  opened\n    it is\\nforged\n    {\"name\":\"\\u001b]0;gone\\u0007\"}"
        );
    }

    #[test]
    fn colours_are_ours_alone() {
        let text = shown().text(true);
        assert!(text.contains("\x1b[1;31mrefused\x1b[0m"), "{text}");
        assert!(
            !text.contains("\x1b[2J") && !text.contains("\x1b]"),
            "{text}"
        );
    }
}
