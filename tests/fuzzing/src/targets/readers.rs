//! Events, cursors, scalars and tokens. None of them may panic, and an accepted value must be written the same way
//! again.

use std::sync::LazyLock;

use serde_json::Value;
use tandem_authentication::{AuthenticationSettings, DevelopmentKey, Scopes, Verifier};
use tandem_model::message::Message;
use tandem_runtime::consistency::Consistency;
use tandem_runtime::trace_context::TraceContext;
use tandem_service::graphql::Cursor;

use super::Target;
use crate::corpus::committed;

pub(super) const EVENTS: Target = Target {
    name: "events",
    open: || {
        let samples = samples();
        Box::new(move |input| event(&samples, input))
    },
    seeds: || {
        // The first byte selects the sample whose headers the body gets.
        let bodies = samples()
            .into_iter()
            .zip(0_u8..)
            .filter_map(|(sample, at)| {
                let mut body = vec![at];
                body.extend(sample.payload?);
                Some(body)
            });
        bodies.chain(committed("events")).collect()
    },
};

pub(super) const HEADERS: Target = Target {
    name: "headers",
    open: || {
        let samples = samples();
        Box::new(move |input| header(&samples, input))
    },
    seeds: || {
        // The first byte selects the event, the second its header.
        let values = samples().into_iter().zip(0_u8..).flat_map(|(sample, of)| {
            let headers = sample.headers.into_iter().zip(0_u8..);
            headers.map(move |((_, value), at)| [&[of, at], value.as_slice()].concat())
        });
        let others = committed("values");
        values
            .chain(
                others
                    .into_iter()
                    .map(|value| [&[0, 0], value.as_slice()].concat()),
            )
            .chain(committed("headers"))
            .collect()
    },
};

pub(super) const CURSORS: Target = Target {
    name: "cursors",
    open: || Box::new(cursor),
    seeds: || committed("cursors"),
};

pub(super) const SCALARS: Target = Target {
    name: "scalars",
    open: || Box::new(scalar),
    seeds: || [committed("values"), committed("scalars")].concat(),
};

pub(super) const TOKENS: Target = Target {
    name: "tokens",
    open: || Box::new(token),
    seeds: || {
        let mut seeds = committed("tokens");
        seeds.push(GOOD.token.clone().into_bytes());
        seeds
    },
};

/// The samples of all events.
fn samples() -> Vec<Message> {
    ["customer-change-event", "order-change-event"]
        .into_iter()
        .flat_map(tandem_event_contract::samples)
        .map(|sample| sample.message)
        .collect()
}

/// The first byte selects the event whose headers are used, or says that the envelope is in the body.
fn event(samples: &[Message], input: &[u8]) {
    const STRUCTURED: u8 = b'!';
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let mut message = samples[usize::from(*first) % samples.len()].clone();
    message.payload = Some(body.to_vec());
    if *first == STRUCTURED {
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

fn header(samples: &[Message], input: &[u8]) {
    let [of, at, value @ ..] = input else {
        return;
    };
    let mut message = samples[usize::from(*of) % samples.len()].clone();
    let at = usize::from(*at) % message.headers.len().max(1);
    if let Some(header) = message.headers.get_mut(at) {
        header.1 = value.to_vec();
    }
    let _ = tandem_model::cloudevents::read(&message);
    let _ = tandem_orders::replica::event::read(&message);
}

/// An accepted cursor is written the same way again.
fn cursor(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(cursor) = Cursor::<String>::decode(&text) {
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }
    if let Ok(cursor) = Cursor::<(i64, String)>::decode(&text) {
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }
    for written in tandem_orders::live::rewritten_cursors(&text)
        .into_iter()
        .flatten()
    {
        let again = tandem_orders::live::rewritten_cursors(&written);
        assert!(again.contains(&Some(written)));
    }
}

fn scalar(input: &[u8]) {
    use tandem_model::values::{Decimal, Timestamp};
    let text = Value::from(String::from_utf8_lossy(input).into_owned());
    if let Ok(time) = serde_json::from_value::<Timestamp>(text.clone()) {
        let written = serde_json::to_value(time).unwrap();
        let read: Timestamp = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }
    if let Ok(decimal) = serde_json::from_value::<Decimal>(text) {
        let written = serde_json::to_value(decimal).unwrap();
        let read: Decimal = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read, decimal);
        // rust_decimal keeps the sign of a value that was rounded to zero, and reads such a zero without the sign.
        // Prices are neither that small nor negative.
        if !decimal.is_zero() {
            assert_eq!(serde_json::to_value(read).unwrap(), written);
        }
    }
}

/// Tokens of all kinds: of callers, of consistency and of traces.
fn token(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(token) = text.parse::<Consistency>() {
        assert_eq!(token.to_string().parse(), Ok(token));
    }
    let _ = text.parse::<TraceContext>();
    assert!(text == GOOD.token.as_str() || !GOOD.takes(&text), "{text}");
}

/// The only valid token, and its verifier.
struct Good {
    runtime: tokio::runtime::Runtime,
    verifier: Verifier,
    token: String,
}

static GOOD: LazyLock<Good> = LazyLock::new(Good::make);

impl Good {
    const NOW: u64 = 1_800_000_000;

    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = DevelopmentKey::open_or_make(folder.path()).unwrap();
        let scopes = Scopes::of_claim("customers:read orders:write");
        let token = key.token("ada", scopes, Self::NOW, 3_600).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let settings = AuthenticationSettings {
            jwks: vec![key.public_keys().display().to_string()],
            issuers: vec![DevelopmentKey::ISSUER.to_owned()],
            audiences: vec![DevelopmentKey::AUDIENCE.to_owned()],
            ..AuthenticationSettings::default()
        };
        let host = std::net::Ipv4Addr::LOCALHOST.into();
        let stop = tokio_util::sync::CancellationToken::new();
        let verifier = runtime
            .block_on(settings.verifier(host, stop))
            .unwrap()
            .unwrap();
        let good = Self {
            runtime,
            verifier,
            token,
        };
        assert!(good.takes(&good.token));
        good
    }

    fn takes(&self, token: &str) -> bool {
        let verified = self.verifier.verify(token, Self::NOW);
        self.runtime.block_on(verified).is_ok()
    }
}
