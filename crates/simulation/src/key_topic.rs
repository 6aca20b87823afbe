//! The final check of the topic of keys. When all of it is compacted, a new reader must learn the key of every customer
//! who has one, and the tombstone of every erased customer.

use std::{collections::BTreeMap, time::Duration};

use tandem_accounts::domain::event::KEY_TOPIC;
use tandem_assembly::admin::keys::Heals;
use tandem_event_path::{data_keys::DataKey, signing::Signer};
use tandem_model::message::Message;

use crate::{
    chance::draw,
    system::{System, signing_key},
};

/// Within this time, everything on its way to the log has arrived, and instances are done with their retries.
const ON_ITS_WAY: Duration = Duration::from_secs(20);

/// Lets an instance of accounts publish again what the topic has lost, as an operator does with `tandem keys publish`.
/// Then judges what compaction leaves of the topic.
pub async fn publish_and_judge(system: &System) -> Vec<String> {
    system.world.sleep(ON_ITS_WAY).await;
    let healed = publish(system).await;
    match healed {
        Ok(published) => system
            .world
            .note(|| format!("the topic of keys lacked {published}")),
        Err(sentence) => return vec![sentence],
    }
    system.cluster.compact(KEY_TOPIC, 0);
    judge(system)
}

async fn publish(system: &System) -> Result<u64, String> {
    let running = system.accounts_slots.iter().filter_map(|it| it.service());
    let running: Vec<_> = running.collect();
    let asked = draw(|chance| chance.pick(&running).cloned());
    let Some((process, accounts)) = asked else {
        return Err("no accounts is there to publish data keys".to_owned());
    };
    let healing = process
        .shutdown
        .spawn(async move { accounts.healing.heal().await });
    match healing.await {
        Ok(Ok(published)) => Ok(published),
        Ok(Err(error)) => Err(format!("data keys are not published in peace: {error}")),
        Err(_) => Err(format!(
            "{} ended while it published data keys",
            process.name
        )),
    }
}

/// The signer whose records count, as accounts has pinned it. The pin also tells which records were written before
/// signatures were required.
fn signer(system: &System) -> Signer {
    let pinned = system.customers.look(|db| db.pinned("accounts"));
    pinned.unwrap_or_else(|| Signer {
        keys: signing_key("accounts", false)
            .map(|key| vec![*key.verifying()])
            .unwrap_or_default(),
        ..Signer::default()
    })
}

/// The content of a record about its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Says {
    Key(String),
    Tombstone,
    /// The record is not signed by accounts, although it must be.
    Nothing,
}

fn read(message: &Message, signer: &Signer) -> Says {
    if signer.judge("accounts", message).is_err() {
        return Says::Nothing;
    }
    let Some(body) = &message.payload else {
        return Says::Tombstone;
    };
    let told = serde_json::from_slice::<serde_json::Value>(body).ok();
    let wrapped = told.as_ref().and_then(|told| told.get("wrapped")?.as_str());
    wrapped.map_or(Says::Nothing, |wrapped| Says::Key(wrapped.to_owned()))
}

/// The contents that the topic has for each subject. If partitions were added, they may be in several partitions,
/// between which there is no order.
fn said(system: &System, signer: &Signer) -> BTreeMap<String, Vec<Says>> {
    let mut said: BTreeMap<String, Vec<Says>> = BTreeMap::new();
    for message in system.cluster.records(KEY_TOPIC) {
        if let Some(subject) = &message.key {
            let says = read(&message, signer);
            said.entry(subject.clone()).or_default().push(says);
        }
    }
    said
}

/// The violations of the topic in its present state, when all of it is compacted.
fn judge(system: &System) -> Vec<String> {
    let (said, sealer) = (said(system, &signer(system)), system.sealer());
    // While the sealing key is being replaced, one data key may be wrapped in several ways. When the old sealing key is
    // gone, the record in the topic must open with the new one.
    let is_same = |key: &str, wrapped: &str, id: &str| {
        DataKey::does_as_well(&sealer, key, wrapped, id)
            || !sealer.older().is_empty() && DataKey::does_as_well(&sealer, wrapped, key, id)
    };
    let mut wrong = Vec::new();
    system.customers.look(|db| {
        for (id, row) in &db.aggregates {
            let customer = &row.stored.state;
            let says = said.get(id).map_or(&[][..], Vec::as_slice);
            if customer.is_erased() {
                if !says.is_empty() && !says.contains(&Says::Tombstone) {
                    wrong.push(format!(
                        "{id} is erased, and the topic of keys has no tombstone of it once it is compacted, but {says:?}"
                    ));
                }
            } else if let Some(wrapped) = customer.data_key() {
                let is_it = |says: &Says| matches!(says, Says::Key(key) if is_same(key, wrapped, id));
                let speaks = |says: &&Says| **says != Says::Nothing;
                if !says.iter().any(is_it) || !says.iter().filter(speaks).all(is_it) {
                    wrong.push(format!(
                        "the data key of {id} is {wrapped}, and the topic of keys has {says:?} of it once it is compacted"
                    ));
                }
            }
        }
    });
    wrong
}
