//! Logs that lose records: retention removes records that are still needed, and topics are deleted and created again.
//! Nobody can read again what was lost. The requirements are that each loss is reported, that nobody concludes anything
//! from it, and that an operator can make the log complete again.

use std::{collections::BTreeSet, sync::Arc};

use tandem_accounts::domain::event::TOPIC as CUSTOMERS;
use tandem_event_path::{
    checkpoint::Checkpoint,
    log::Log,
    log_memory::LogWatch,
    log_restore::RestoresLog,
    rebuild::{Lacking, Order, Outcome, Target},
};
use tandem_orders::domain::event::TOPIC as ORDERS;

use crate::{
    chance::draw,
    losses::{Lost, Told},
    process::Process,
    store::db::Db,
    system::System,
};

/// How a log loses records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Retention removes old records of a partition, whether they were read or not.
    Retention,
    /// A topic is deleted and created again, empty.
    MadeAnew,
}

/// The stores that remember something of a partition, by service.
fn remembering(system: &System, topic: &str, partition: usize) -> Vec<Told> {
    let name = format!("log/{topic}/{partition}");
    let mut told = Vec::new();
    if system.customers.look(|db| remembers(db, &name)) {
        told.push(("accounts", name.clone()));
    }
    if system.orders.look(|db| remembers(db, &name)) {
        told.push(("orders", name));
    }
    told
}

fn remembers<A>(db: &Db<A>, name: &str) -> bool {
    db.registry.contains_key(name)
}

/// The present content of a partition.
fn there(system: &System, topic: &'static str, partition: usize) -> Lost {
    let read = system.cluster.change(topic, |topic| {
        let partition = topic.partitions.get(partition)?;
        Some(partition.read(partition.low(), usize::MAX).0)
    });
    Lost {
        topic,
        partition,
        records: read.flatten().unwrap_or_default(),
    }
}

/// Whether all lost records are in the partition again. A publisher without an acknowledgement publishes the same
/// record once more.
fn is_back(system: &System, lost: &Lost) -> bool {
    let now = there(system, lost.topic, lost.partition).records;
    let mut lost = lost.records.iter();
    lost.all(|lost| {
        now.iter()
            .any(|it| Checkpoint::of(it) == Checkpoint::of(lost))
    })
}

/// Makes the log lose records, once both services have a filled store: a new store refuses a log whose beginning is
/// gone.
pub fn lose(system: &System, loss: Loss) {
    let mut accounts = system.accounts_slots.iter().filter_map(|it| it.service());
    let mut orders = system.orders_slots.iter().filter_map(|it| it.service());
    if !accounts.any(|(_, it)| it.gate.is_open()) || !orders.any(|(_, it)| it.gate.is_open()) {
        return;
    }
    let topic = draw(|chance| chance.pick(&[CUSTOMERS, ORDERS]).copied()).unwrap_or(CUSTOMERS);
    let count = system.cluster.partitions(topic);
    match loss {
        Loss::MadeAnew => {
            for partition in 0..count {
                let told = remembering(system, topic, partition);
                system.losses.add(told, &there(system, topic, partition));
            }
            system.cluster.remake(topic);
        }
        Loss::Retention => {
            let partition = draw(|chance| chance.below(count as u64));
            let partition = usize::try_from(partition).unwrap_or_default();
            let lost = there(system, topic, partition);
            let cut = system.cluster.change(topic, |topic| {
                let partition = topic.partitions.get_mut(partition)?;
                let (low, stable) = (partition.low(), partition.stable());
                let kept = draw(|chance| chance.below((stable - low).cast_unsigned() + 1));
                partition.retain_from(stable - kept.cast_signed());
                Some(partition.low() > low)
            });
            if cut.flatten() == Some(true) {
                let told = remembering(system, topic, partition);
                system.losses.add(told, &lost);
            }
        }
    }
}

const NOBODY: &str = "nobody is there to mend the log";

/// Whether the instances run that an operator would use.
fn is_attended(system: &System) -> bool {
    system.accounts_slots[0].service().is_some() && system.orders_slots[0].service().is_some()
}

/// The losses that nobody reports.
#[must_use]
pub fn untold(system: &System) -> Vec<String> {
    let mut alarms = BTreeSet::new();
    let mut hear = |service: &'static str, watch: &LogWatch| {
        for alarm in watch.alarms().unwrap_or_default() {
            alarms.insert((service, format!("log/{}/{}", alarm.topic, alarm.partition)));
        }
    };
    for (_, accounts) in system.accounts_slots.iter().filter_map(|it| it.service()) {
        hear("accounts", &accounts.watch);
    }
    for (_, orders) in system.orders_slots.iter().filter_map(|it| it.service()) {
        hear("orders", &orders.watch);
    }
    if !is_attended(system) {
        return vec![NOBODY.to_owned()];
    }
    let lost = system.losses.told().clone();
    lost.iter()
        .filter(|(told, lost)| !alarms.contains(told) && !is_back(system, lost))
        .map(|((service, place), _)| {
            format!("{service} does not tell that {place} has lost records")
        })
        .collect()
}

/// The work of an operator after a loss: writes the stored state to the log, reads all of it again, and accepts the log
/// as it is.
pub async fn mend(system: &System) -> Vec<String> {
    let mut wrong = Vec::new();
    let accounts = system.accounts_slots[0].service();
    let orders = system.orders_slots[0].service();
    let (Some((of_accounts, accounts)), Some((of_orders, orders))) = (accounts, orders) else {
        return vec![NOBODY.to_owned()];
    };
    wrong.extend(restore("accounts", &accounts.restores, &of_accounts).await);
    wrong.extend(restore("orders", &orders.restores, &of_orders).await);
    for (process, targets, log) in [
        (&of_accounts, &accounts.targets, &accounts.log),
        (&of_orders, &orders.targets, &orders.log),
    ] {
        for target in targets {
            wrong.extend(read_again(target, log, process).await);
        }
    }
    for watch in [&accounts.watch, &orders.watch] {
        if let Err(error) = watch.accept().await {
            wrong.push(format!("the log is not accepted: {error}"));
        }
    }
    wrong
}

async fn restore(
    service: &str,
    restores: &Arc<dyn RestoresLog>,
    process: &Process,
) -> Option<String> {
    let restored = restores.restore(&process.shutdown, &mut |_| {}).await;
    let error = restored.err()?;
    Some(format!("the log of {service} is not restored: {error}"))
}

/// Rebuilds from the log, which has the stored state again. Of what only an audit trail has, the newest is kept.
async fn read_again(
    target: &Arc<dyn Target>,
    log: &Arc<dyn Log>,
    process: &Process,
) -> Vec<String> {
    let name = target.name();
    let order = Order {
        looks: true,
        distrusts: true,
        restores: true,
        ..Order::default()
    };
    let rebuilt = Arc::clone(target)
        .rebuild(log, order, &process.shutdown, &mut |_| {})
        .await;
    let Outcome { lacking, .. } = match rebuilt {
        Ok(outcome) => outcome,
        Err(error) => return vec![format!("{name} cannot be read again: {error}")],
    };
    let is_trail = [tandem_accounts::audit::NAME, tandem_orders::audit::NAME].contains(&name);
    lacking
        .into_iter()
        .filter(|lacking| !is_trail && !matches!(lacking, Lacking::Differing(_)))
        .map(|lacking| format!("the log of {name} was restored, and lacks {lacking:?}"))
        .collect()
}
