//! Data keys that are lost from their topic while accounts runs. `tandem keys publish` republishes exactly those. What
//! a recreated topic lacks is republished automatically.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tandem_backends::require;

use super::support::{
    Client, Tandem,
    ground::{Ground, KEYS, Log, Raw},
    poll,
};

const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";

#[test]
fn keys_that_the_topic_has_lost_are_published_again_and_no_others() {
    lost_keys(&Ground::embedded());
}

#[test]
fn keys_that_the_topic_has_lost_on_real_servers_are_published_again_and_no_others() {
    require!(mongod, kafka);
    lost_keys(&Ground::on_real_servers());
}

/// The newest record of each subject on the topic of keys.
fn newest(log: &Log) -> BTreeMap<String, Raw> {
    let records = log.read(KEYS).into_iter();
    records
        .filter(|raw| !raw.is_claim())
        .map(|raw| (raw.key.clone(), raw))
        .collect()
}

/// Republishes what was lost. Returns the subjects whose records were published.
#[track_caller]
fn published(tandem: &Tandem, log: &Log) -> BTreeSet<String> {
    let place = |raw: &Raw| (raw.partition, raw.offset);
    let before: BTreeSet<_> = log.read(KEYS).iter().map(place).collect();
    let told = tandem.operated(&["keys", "publish"]);
    let new = |raw: &Raw| !before.contains(&place(raw)) && !raw.is_claim();
    let new: Vec<String> = log
        .read(KEYS)
        .into_iter()
        .filter(new)
        .map(|raw| raw.key)
        .collect();
    assert_eq!(told.trim(), format!("{} published", new.len()));
    let subjects: BTreeSet<String> = new.iter().cloned().collect();
    assert_eq!(
        subjects.len(),
        new.len(),
        "one was published twice: {new:?}"
    );
    subjects
}

fn lost_keys(ground: &Ground) {
    let tandem = ground.start();
    let client = Client::new();
    let all: BTreeSet<String> = (0..12).map(|n| format!("c{n}")).collect();
    for id in &all {
        tandem.customer(&client, id);
    }
    client.data(&tandem.gateway_url("/graphql"), ERASE, json!({"id": "c7"}));
    tandem.published(&client);
    let log = Log::of(&tandem);
    poll("every key is on the topic, and the tombstone", || {
        let newest = newest(&log);
        (newest.len() == all.len() && newest["c7"].payload.is_none()).then_some(())
    });
    assert_eq!(published(&tandem, &log), BTreeSet::new());

    // A part is lost: everything up to the middle of one partition, perhaps with an older record of the erased
    // customer, or its tombstone.
    let before = newest(&log);
    let middle = &before["c3"];
    log.cut_compacted(KEYS, middle.partition, middle.offset + 1);
    let is_lost = |raw: &&Raw| raw.partition == middle.partition && raw.offset <= middle.offset;
    let lost: BTreeSet<String> = before
        .values()
        .filter(is_lost)
        .map(|raw| raw.key.clone())
        .collect();
    assert!(lost.contains("c3") && lost.len() < all.len(), "{lost:?}");
    assert_eq!(published(&tandem, &log), lost);
    assert_eq!(published(&tandem, &log), BTreeSet::new());

    // Everything is lost.
    for (partition, (_, end)) in log.ends(KEYS) {
        log.cut_compacted(KEYS, partition, end);
    }
    assert_eq!(published(&tandem, &log), all);
    assert_eq!(published(&tandem, &log), BTreeSet::new());

    // The topic itself is lost. That is reported, and repaired without an order. The new topic is read from its
    // beginning.
    log.remake(KEYS);
    poll("the new topic has all keys, and the claim", || {
        let keys: BTreeSet<String> = newest(&log).into_keys().collect();
        let is_claimed = log.read(KEYS).iter().any(|raw| raw.is_claim());
        (keys == all && is_claimed).then_some(())
    });
    assert_eq!(published(&tandem, &log), BTreeSet::new());
    for service in ["accounts", "orders"] {
        poll("the topic of keys is told to be another one", || {
            let said = tandem.operate(&["log", "status", service]);
            (!said.succeeded && said.output.contains(KEYS)).then_some(())
        });
        tandem.operated(&["log", "accept", service]);
        tandem.operated(&["log", "status", service]);
    }
    assert!(newest(&log)["c7"].payload.is_none(), "an erasure stays one");
    tandem.customer(&client, "after");
    tandem.published(&client);
    assert_eq!(published(&tandem, &log), BTreeSet::new());
}
