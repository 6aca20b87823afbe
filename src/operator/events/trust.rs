//! What the topic of keys says, followed while events are shown: whose signatures count, and which data keys there are.
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
/// So many claims are held: the first ones, which say whose the topics are, and the newest.
const MOST_CLAIMS: usize = 256;
/// How long a data key is waited for that is most likely on its way: it is published before the event.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// What a signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The service whose topic it is signed it.
    Good,
    /// It has none, and needs none, as far as that is known: why.
    Unsigned(String),
    /// It has one, and what it would be verified with is not known here: what to do.
    Unverified(String),
    /// The services refuse it: why.
    Refused(String),
}

/// What is known of a data key.
pub(super) enum Known {
    Key(Box<DataKey>),
    /// Why it does not open.
    No(String),
}

/// What the topic of keys says so far.
pub(super) struct Trust {
    tail: Option<Box<dyn Tail>>,
    sealer: Option<Sealer>,
    given: Vec<TrustedSigner>,
    /// The verifying keys of the data directory's own keys: accounts' and orders'.
    local: Option<[VerifyingKey; 2]>,
    claims: Vec<Message>,
    accounts: Option<Signer>,
    system: Option<String>,
    /// Data keys as they are published, `None` for those that are erased.
    wrapped: HashMap<String, Option<String>>,
    /// Subjects whose keys were waited for in vain.
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

    /// The system that the topics belong to, if a claim says so.
    pub(super) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Takes a record of the topic of keys.
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

    /// Takes what has come on the topic of keys meanwhile.
    pub(super) fn catch_up(&mut self) {
        while let Some(arrival) = self.tail.as_ref().and_then(|tail| tail.next_ready()) {
            if let Arrival::Record(message) = arrival {
                self.hear(message);
            }
        }
    }

    /// The data key of a subject; waits for one that is most likely on its way.
    pub(super) async fn key_of(&mut self, subject: &str) -> Known {
        if self.sealer.is_none() {
            return Known::No("no sealing key is given".to_owned());
        }
        if !self.wrapped.contains_key(subject) && self.missed.insert(subject.to_owned()) {
            // It is not there when the time is over.
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

    /// Judges a record of this topic as the services do, as far as what they go by is known here.
    pub(super) fn judge(&self, topic: &str, message: &Message) -> Verdict {
        let service = if topic == ORDERS { "orders" } else { ACCOUNTS };
        let claimed = self.accounts.as_ref().filter(|_| service == ACCOUNTS);
        let mut signer = claimed.cloned().unwrap_or_default();
        let given = self.given.iter().filter(|given| given.service == service);
        signer.keys.extend(given.map(|given| given.key));
        // The data directory may be another system's: its key of orders counts where its key of accounts is the one of the claim.
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

/// The sealing key, if there is one; one that was named must be.
fn sealer(place: &Place) -> anyhow::Result<Option<Sealer>> {
    match Sealer::from_settings(&place.sealing(&place.found())) {
        Ok(sealer) => Ok(Some(sealer)),
        Err(KeyError::Missing | KeyError::Unreadable { .. }) if !place.names_a_key() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the signing keys in the data directory are verified with, if both are there and may be read.
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
