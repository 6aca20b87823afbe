//! Follows the topic of keys while events are shown, to know whose signatures count and which data keys exist.
#![expect(clippy::disallowed_methods, reason = "a command runs on real time")]

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use tandem_event_path::{
    claims::{Claim, claimed_signer},
    data_keys::DataKey,
    log::{Arrival, Attention, Log, LogError, Tail},
    sealing::{KeyError, Sealer},
    signing::{Signer, SigningKey, SigningSettings, TrustedSigner, Unverified, VerifyingKey},
};
use tandem_log_kafka::connection::Kafka;
use tandem_model::message::Message;
use tandem_runtime::clock::Clock;

use super::{KEYS, ORDERS, SILENCE};
use crate::{operator::reach::Place, terminal::say_aside};

/// The service that signs customers' events, data keys and claims.
const ACCOUNTS: &str = "accounts";
const CLAIM: &str = "!claim/";
/// How many claims are kept: the first ones, which say who owns the topics, and the newest.
const MOST_CLAIMS: usize = 256;
/// How long to wait for a data key that is probably on its way, because the key is published before the event.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// The result of verifying a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Signed by the service that owns the topic.
    Good,
    /// Not signed, and as far as is known needs no signature. The text says why.
    Unsigned(String),
    /// Signed, but the key to verify it is not known here. The text says what to do.
    Unverified(String),
    /// The services refuse the record. The text says why.
    Refused(String),
}

/// What is known about a data key.
pub(super) enum Known {
    Key(Box<DataKey>),
    /// Why it cannot be opened.
    No(String),
}

/// The state of the topic of keys so far.
pub(super) struct Trust {
    tail: Option<Box<dyn Tail>>,
    sealer: Option<Sealer>,
    given: Vec<TrustedSigner>,
    /// The verifying keys of accounts and orders, from the signing keys in the data directory.
    local: Option<[VerifyingKey; 2]>,
    claims: Vec<Message>,
    accounts: Option<Signer>,
    system: Option<String>,
    /// Data keys in their published, wrapped form. `None` for erased ones.
    wrapped: HashMap<String, Option<String>>,
    /// Subjects whose keys did not arrive within the wait.
    missed: HashSet<String>,
}

impl Trust {
    /// Reads the topic of keys up to its end.
    pub(super) async fn learn(
        kafka: &Kafka,
        place: &Place,
        given: &[TrustedSigner],
    ) -> anyhow::Result<Self> {
        let mut trust = Self {
            tail: None,
            sealer: sealer(place)?,
            given: given.to_vec(),
            local: local(place),
            claims: Vec::new(),
            accounts: None,
            system: None,
            wrapped: HashMap::new(),
            missed: HashSet::new(),
        };
        let ends = match kafka.topic(KEYS).await {
            Ok(state) => state.ends,
            Err(LogError::NoPartitions(_)) => {
                say_aside(&format!(
                    "tandem: there is no topic {KEYS}: nothing can be opened, and no signature verified but by --trusted-signers"
                ));
                return Ok(trust);
            }
            Err(error) => return Err(error).context("the log cannot be read"),
        };
        let mut left: HashSet<i32> = ends.keys().copied().collect();
        let from = ends
            .iter()
            .map(|(partition, (low, _))| (*partition, *low))
            .collect();
        let tail = kafka.tail(KEYS, &from, Attention::Prompt)?;
        while !left.is_empty() {
            let arrival = tokio::time::timeout(SILENCE, tail.next()).await;
            match arrival.context("the topic of keys went silent before its end")?? {
                Arrival::End(partition) => {
                    left.remove(&partition);
                }
                Arrival::Record(message) => trust.hear(message),
            }
        }
        trust.tail = Some(tail);
        Ok(trust)
    }

    /// The system that owns the topics, if a claim names it.
    pub(super) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Processes a record of the topic of keys.
    fn hear(&mut self, message: Message) {
        let Some(key) = message.key.clone() else {
            return;
        };
        if key.starts_with(CLAIM) {
            if self.claims.len() == MOST_CLAIMS {
                self.claims.remove(MOST_CLAIMS / 2);
            }
            self.claims.push(message);
            self.accounts = claimed_signer(ACCOUNTS, &self.claims);
            self.system = self.claims.iter().find_map(|claim| {
                let is_taken = !matches!(self.judge(KEYS, claim), Verdict::Refused(_));
                let body = claim.payload.as_deref().filter(|_| is_taken)?;
                Some(serde_json::from_slice::<Claim>(body).ok()?.system)
            });
            return;
        }
        if matches!(self.judge(KEYS, &message), Verdict::Refused(_)) {
            return;
        }
        let body = message
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Value>);
        match body {
            // A tombstone is final, whatever comes after it.
            None => {
                self.wrapped.insert(key, None);
            }
            Some(Ok(body)) if self.wrapped.get(&key) != Some(&None) => {
                if let Some(wrapped) = body["wrapped"].as_str() {
                    self.wrapped.insert(key, Some(wrapped.to_owned()));
                }
            }
            Some(_) => {}
        }
    }

    /// Processes the records that have arrived on the topic of keys in the meantime.
    pub(super) fn catch_up(&mut self) {
        while let Some(arrival) = self.tail.as_ref().and_then(|tail| tail.next_ready()) {
            if let Arrival::Record(message) = arrival {
                self.hear(message);
            }
        }
    }

    /// The data key of a subject. Waits for one that is probably on its way.
    pub(super) async fn key_of(&mut self, subject: &str) -> Known {
        if self.sealer.is_none() {
            return Known::No("no sealing key is given".to_owned());
        }
        if !self.wrapped.contains_key(subject) && self.missed.insert(subject.to_owned()) {
            // After the time limit the key is missing.
            let _ = tokio::time::timeout(ON_ITS_WAY, self.until_known(subject)).await;
        }
        let (Some(sealer), Some(known)) = (&self.sealer, self.wrapped.get(subject)) else {
            return Known::No("the data key is not on the topic of keys".to_owned());
        };
        let Some(wrapped) = known else {
            return Known::No("the customer has been erased".to_owned());
        };
        match DataKey::unwrap(sealer, wrapped, subject) {
            Ok(key) => Known::Key(Box::new(key)),
            Err(error) => Known::No(format!(
                "the data key does not open with this sealing key: {error}"
            )),
        }
    }

    async fn until_known(&mut self, subject: &str) {
        while !self.wrapped.contains_key(subject) {
            let Some(tail) = &self.tail else { return };
            match tail.next().await {
                Ok(Arrival::Record(message)) => self.hear(message),
                Ok(Arrival::End(_)) => {}
                Err(_) => return,
            }
        }
    }

    /// Verifies a record of this topic like the services do, with the keys that are known here.
    pub(super) fn judge(&self, topic: &str, message: &Message) -> Verdict {
        let service = if topic == ORDERS { "orders" } else { ACCOUNTS };
        let claimed = self.accounts.as_ref().filter(|_| service == ACCOUNTS);
        let mut signer = claimed.cloned().unwrap_or_default();
        let given = self.given.iter().filter(|given| given.service == service);
        signer.keys.extend(given.map(|given| given.key));
        // The data directory may belong to another system. Its key of orders counts only if its key of accounts is the
        // claimed one.
        if let Some([accounts, orders]) = self.local
            && service != ACCOUNTS
            && self
                .accounts
                .as_ref()
                .is_some_and(|claimed| claimed.keys.contains(&accounts))
        {
            signer.keys.push(orders);
        }
        let Err(reason) = signer.has_signed(service, message) else {
            return Verdict::Good;
        };
        match reason {
            Unverified::Missing(_) if claimed.is_none() => Verdict::Unsigned(format!(
                "from where on {service} signs its records is not known here"
            )),
            Unverified::Missing(_) if signer.judge(service, message).is_ok() => {
                Verdict::Unsigned("from before records were signed".to_owned())
            }
            Unverified::OtherKey { .. } if signer.keys.is_empty() => Verdict::Unverified(format!(
                "the verifying key of {service} is not known here: give it as --trusted-signers {service}=BASE64"
            )),
            reason => Verdict::Refused(reason.to_string()),
        }
    }
}

/// The sealing key, if there is one. One that the settings name must exist.
fn sealer(place: &Place) -> anyhow::Result<Option<Sealer>> {
    match Sealer::from_settings(&place.sealing(&place.found())) {
        Ok(sealer) => Ok(Some(sealer)),
        Err(KeyError::Missing | KeyError::Unreadable { .. }) if !place.names_a_key() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The verifying keys of the signing keys in the data directory, if both files exist and can be read.
fn local(place: &Place) -> Option<[VerifyingKey; 2]> {
    let key = |service: &str| {
        let file = place.data_dir.join(format!("{service}.signing.key"));
        let settings = SigningSettings {
            signing_key_file: Some(file),
            ..SigningSettings::default()
        };
        let key = SigningKey::from_settings(&settings, service, &place.data_dir, &Clock::default());
        Some(*key.ok()?.verifying())
    };
    Some([key(ACCOUNTS)?, key("orders")?])
}
