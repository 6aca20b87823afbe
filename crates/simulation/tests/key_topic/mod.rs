//! A topic of keys with its writers, and the store of the service that reads it.

use std::{collections::HashSet, sync::Arc};

use tandem_accounts::domain::event::KEY_TOPIC;
use tandem_event_path::{
    claims::Claim,
    data_keys::publication,
    log::{Log, Record},
    signing::{Signatures, Signer, SigningKey, SigningSettings},
    store::{DeadLetterStore, Registry},
};
use tandem_orders::domain::Order;
use tandem_simulation::{
    faults::Faults,
    log::Cluster,
    store::{Database, Kind},
    world::World,
};

/// The topic, and the store of orders.
pub(super) struct KeyTopic {
    pub(super) world: World,
    pub(super) cluster: Cluster,
    pub(super) letters: Arc<dyn DeadLetterStore>,
    pub(super) registry: Arc<dyn Registry>,
}

impl KeyTopic {
    pub(super) fn new() -> Self {
        let (world, faults) = (World::begin(false), Faults::default());
        let cluster = Cluster::new(&world, &faults);
        cluster.make(KEY_TOPIC, true, 1);
        let database = Database::<Order>::new(&world, "orders", Kind::Replicated, &faults);
        Self {
            letters: Arc::new(database.clone()),
            registry: Arc::new(database),
            world,
            cluster,
        }
    }
}

pub(super) fn signatures(service: &'static str, seed: u8) -> Signatures {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    let settings = SigningSettings::default();
    Signatures::new(service, key, &[(KEY_TOPIC, "accounts")], &settings)
}

/// A signer with the keys of these.
pub(super) fn signer(keys_of: &[&Signatures]) -> Signer {
    Signer {
        keys: keys_of.iter().map(|it| *it.verifying()).collect(),
        ..Signer::default()
    }
}

pub(super) fn subjects(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn claim(system: &str, number: u64) -> Claim {
    Claim {
        system: system.to_owned(),
        number,
        ..Claim::default()
    }
}

/// Publishes a wrapped key, or a tombstone.
pub(super) async fn publish(log: &dyn Log, by: &Signatures, subject: &str, wrapped: Option<&str>) {
    let body = publication(KEY_TOPIC, subject, wrapped).payload;
    let record = Record::new(KEY_TOPIC, subject, body.as_deref().map(str::as_bytes));
    log.publish(by.signed(record)).await.unwrap();
}
