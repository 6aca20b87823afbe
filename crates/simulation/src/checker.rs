//! The checker: judges the log, the stores and the history when the run has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use tandem_accounts::{
    audit,
    domain::{Customer, event::TOPIC as CUSTOMERS},
};
use tandem_event_path::{log_restore::RESTORED, signing::SIGNATURE, waiting::is_waiting};
use tandem_model::{aggregate::Aggregate, cloudevents, message::Message};
use tandem_orders::domain::{Order, OrderChangeEvent, event::TOPIC as ORDERS};

use crate::{
    history::{Acknowledged, Events, History, OrdersHeard},
    log::foreign::is_foreign,
    store::db::Db,
    system::System,
};

/// The events of one aggregate in the log.
#[derive(Debug, Default)]
struct Told {
    /// For each revision, the id of its event.
    events: BTreeMap<i64, String>,
    /// The revisions in the order in which they were first seen.
    order: Vec<i64>,
    /// Revisions that arrived before the key that they need could be read.
    ahead_of_key: BTreeSet<i64>,
}

type Logged = BTreeMap<String, Told>;

/// All violations, as sentences.
#[derive(Debug, Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.0.push(sentence());
        }
    }
}

/// The requirements that are not met now. All of them must be met when the run has come to rest.
#[must_use]
pub fn judge(system: &System, history: &History) -> Vec<String> {
    let mut wrong = Wrong::default();
    let ledger = system.cluster.ledger();
    let events = history.events();
    wrong.0.extend(events.violations.iter().cloned());
    wrong.0.extend(system.refusals().iter().cloned());
    let log = Log {
        ledger,
        readable: system.cluster.readable(),
    };
    // Nobody can read for the first time what a log has lost. Of what is stored, only the newest state of each
    // aggregate is published again.
    let is_whole = !system.losses.is_any();
    let customers = log.told(CUSTOMERS, of_customer, &mut wrong);
    let orders = log.told(ORDERS, of_order, &mut wrong);
    acknowledged_changes_are_told("customer", &events.customers, &customers, &mut wrong);
    acknowledged_changes_are_told("order", &events.orders, &orders, &mut wrong);
    system.customers.look(|db| {
        states_are_as_told(db, &customers, &mut wrong);
        trail_is_as_told(db, &customers, is_whole, &mut wrong);
        nothing_is_set_aside("accounts", db, &mut wrong);
        marks_are_there_once(db, &events, &mut wrong);
        erased_stay_erased(db, &events, &mut wrong);
    });
    system.orders.look(|db| {
        states_are_as_told(db, &orders, &mut wrong);
        trail_is_as_told(db, &orders, is_whole, &mut wrong);
        nothing_is_set_aside("orders", db, &mut wrong);
        orders_are_placed_once(db, &events, &mut wrong);
    });
    replica_is_as_accounts(system, &mut wrong);
    orders_forget_who_was_erased(system, &mut wrong);
    subscribers_heard_in_order(&events, &orders, is_whole, &mut wrong);
    watchers_heard_in_order(&events, &mut wrong);
    if is_whole {
        subscribers_heard_everything(&events, &orders, system, &mut wrong);
        watchers_heard_everything(&events, &customers, &mut wrong);
    }
    wrong.0
}

/// An event, as the checker reads it.
struct Event {
    id: String,
    revision: i64,
    event: String,
    /// The subject whose key the event needs.
    subject: String,
}

fn of_customer(message: &Message) -> Option<Event> {
    let (event, told) = audit::read(message).ok()?;
    Some(Event {
        id: told.id.to_string(),
        revision: told.revision,
        event: event.id,
        subject: told.id.to_string(),
    })
}

fn of_order(message: &Message) -> Option<Event> {
    let event = cloudevents::read(message).ok()?;
    let told = OrderChangeEvent::read(&event).ok()?;
    Some(Event {
        id: told.id,
        revision: told.revision,
        event: event.id,
        subject: told.customer_id,
    })
}

/// How long a reader waits for a key that is on its way. Subscribers need not get a change whose key arrives later.
const ON_ITS_WAY: u64 = 50_000_000;

/// Everything that was ever in the log.
struct Log {
    ledger: Vec<(u64, Message)>,
    /// For each subject, the time since when a new reader finds its key.
    readable: BTreeMap<String, u64>,
}

impl Log {
    /// Checks that each revision has one event, and is first seen after the previous revision.
    fn told(&self, topic: &str, read: fn(&Message) -> Option<Event>, wrong: &mut Wrong) -> Logged {
        let mut logged = Logged::new();
        for (at, message) in &self.ledger {
            if message.topic != topic || is_foreign(&message.headers) {
                continue;
            }
            let Some(Event {
                id,
                revision,
                event,
                subject,
            }) = read(message)
            else {
                continue;
            };
            let told = logged.entry(id.clone()).or_default();
            if let Some(first) = told.events.get(&revision) {
                // If nobody knows the id of a lost event, the event is published again with another id.
                wrong.unless(*first == event || is_restored(message), || {
                    format!("{id} {revision} is told by two events, {first} and {event}")
                });
                continue;
            }
            let before = told.order.last().copied().unwrap_or(0);
            wrong.unless(revision == before + 1, || {
                format!("{topic} shows {id} {revision} behind {before}")
            });
            let readable = self.readable.get(&subject).copied();
            if readable.is_none_or(|readable| readable + ON_ITS_WAY > *at) {
                told.ahead_of_key.insert(revision);
            }
            told.events.insert(revision, event);
            told.order.push(revision);
        }
        logged
    }
}

fn acknowledged_changes_are_told(
    what: &str,
    acknowledged: &BTreeSet<Acknowledged>,
    logged: &Logged,
    wrong: &mut Wrong,
) {
    for Acknowledged { id, revision, .. } in acknowledged {
        let is_told = logged
            .get(id)
            .is_some_and(|told| told.events.contains_key(revision));
        wrong.unless(is_told, || {
            format!("{what} {id} {revision} was acknowledged and is not in the log")
        });
    }
}

/// Every stored state is the newest in the log, and nothing is pending.
fn states_are_as_told<A: Aggregate>(db: &Db<A>, logged: &Logged, wrong: &mut Wrong) {
    for (id, row) in &db.aggregates {
        let (revision, pending) = (row.stored.state.revision(), row.stored.pending.len());
        let newest = logged.get(id).and_then(|told| told.order.last().copied());
        wrong.unless(newest == Some(revision), || {
            format!("{id} is stored at {revision}, and the log's newest is {newest:?}")
        });
        wrong.unless(pending == 0, || {
            format!("{id} has {pending} events pending")
        });
    }
    for id in logged.keys() {
        wrong.unless(db.aggregates.contains_key(id), || {
            format!("{id} is in the log and not in the store of {}", A::NAME)
        });
    }
}

fn is_restored(message: &Message) -> bool {
    message.headers.iter().any(|(name, _)| name == RESTORED)
}

/// The audit trail has what the log has, if the log has lost nothing. It never has anything else.
fn trail_is_as_told<A>(db: &Db<A>, logged: &Logged, is_whole: bool, wrong: &mut Wrong) {
    for (id, told) in logged {
        for (revision, event) in &told.events {
            let held = db.changes.get(&(id.clone(), *revision));
            let held = held.map(|(record, _)| &record.event_id);
            wrong.unless(!is_whole || held == Some(event), || {
                format!("the audit trail has {held:?} of {id} {revision}, the log {event}")
            });
        }
    }
    for (id, revision) in db.changes.keys() {
        let is_told = logged
            .get(id)
            .is_some_and(|told| told.events.contains_key(revision));
        wrong.unless(is_told, || {
            format!("the audit trail has {id} {revision}, the log has not")
        });
    }
}

/// Nothing waits for a key, and none of our records is a dead letter.
fn nothing_is_set_aside<A>(service: &str, db: &Db<A>, wrong: &mut Wrong) {
    for letter in db.letters.values() {
        let is_ours = |(name, _): &(String, Vec<u8>)| name == "ce_id" || name == SIGNATURE;
        let is_ours = letter.headers.iter().any(is_ours) && !is_foreign(&letter.headers);
        wrong.unless(!is_waiting(&letter.consumer), || {
            format!(
                "{service}: {} {} waits: {}",
                letter.consumer, letter.key, letter.reason
            )
        });
        wrong.unless(!is_ours, || {
            format!(
                "{service}: {} {} is a dead letter: {}",
                letter.consumer, letter.key, letter.reason
            )
        });
    }
}

/// For each request with an idempotency key, there is only one customer.
fn marks_are_there_once(db: &Db<Customer>, events: &Events, wrong: &mut Wrong) {
    let mut by_mark: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, row) in &db.aggregates {
        let email = row.stored.state.contact().email.as_str();
        if let Some(mark) = email.strip_suffix("@example.com") {
            by_mark.entry(mark).or_default().push(id);
        }
    }
    for (mark, ids) in by_mark {
        wrong.unless(ids.len() == 1 || !events.once.contains(mark), || {
            format!("{mark} was asked for once and made {ids:?}")
        });
    }
    // Two acknowledged changes never have the same revision.
    let mut by_revision: BTreeMap<(&str, i64), &str> = BTreeMap::new();
    for Acknowledged {
        id, revision, mark, ..
    } in &events.customers
    {
        let other = by_revision.insert((id, *revision), mark);
        wrong.unless(other.is_none_or(|other| other == mark), || {
            format!("{id} {revision} was answered to {mark} and to {other:?}")
        });
    }
}

fn orders_are_placed_once(db: &Db<Order>, events: &Events, wrong: &mut Wrong) {
    let mut by_mark: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, row) in &db.aggregates {
        for item in &row.stored.state.items {
            by_mark.entry(&item.product.guid).or_default().push(id);
        }
    }
    for (mark, ids) in by_mark {
        wrong.unless(ids.len() == 1, || {
            format!("{mark} was asked for once and placed {ids:?}")
        });
    }
    for Acknowledged { id, .. } in &events.orders {
        wrong.unless(db.aggregates.contains_key(id), || {
            format!("order {id} was acknowledged and is not stored")
        });
    }
}

fn erased_stay_erased(db: &Db<Customer>, events: &Events, wrong: &mut Wrong) {
    for (id, row) in &db.aggregates {
        let is_erased = row.stored.state.is_erased();
        match events.erasures.get(id) {
            None => wrong.unless(!is_erased, || {
                format!("{id} is erased, and nobody asked for that")
            }),
            Some(true) => wrong.unless(is_erased, || {
                format!("the erasure of {id} was acknowledged, and it is there")
            }),
            Some(false) => {}
        }
        if is_erased {
            let answers = db.answers.values();
            let kept = answers.filter_map(|answer| answer.state.as_ref());
            let kept = kept.filter(|state| state.id() == id && !state.is_erased());
            wrong.unless(kept.count() == 0, || {
                format!("{id} is erased, and a first answer still shows it")
            });
        }
    }
}

fn replica_is_as_accounts(system: &System, wrong: &mut Wrong) {
    let customers: BTreeMap<String, Customer> = system.customers.look(|db| {
        let rows = db.aggregates.iter();
        rows.map(|(id, row)| (id.clone(), row.stored.state.clone()))
            .collect()
    });
    system.orders.look(|db| {
        for (id, customer) in &customers {
            let held = db.replica.get(id).map(|(held, _)| held);
            let is_same = held.is_some_and(|held| {
                held.revision == customer.revision()
                    && held.erased == customer.is_erased()
                    && held.name.first_name == customer.name().first_name
                    && held.contact.email == customer.contact().email
                    && held.addresses.len() == customer.addresses().len()
            });
            wrong.unless(is_same, || {
                let held = held.map(|held| (held.revision, held.erased, &held.name.first_name));
                let name = &customer.name().first_name;
                let (revision, erased) = (customer.revision(), customer.is_erased());
                format!("the replica has {held:?} of {id}, accounts {revision} {erased} {name}")
            });
        }
        for id in db.replica.keys() {
            wrong.unless(customers.contains_key(id), || {
                format!("the replica has {id}, accounts has not")
            });
        }
    });
}

fn orders_forget_who_was_erased(system: &System, wrong: &mut Wrong) {
    system.orders.look(|db| {
        let is_erased = |id: &str| db.replica.get(id).is_some_and(|(held, _)| held.erased);
        for (id, row) in &db.aggregates {
            let order = &row.stored.state;
            let erased = is_erased(&order.customer_id);
            wrong.unless(!erased || order.ship_to.is_none(), || {
                format!(
                    "order {id} keeps the address of {}, who is erased",
                    order.customer_id
                )
            });
            wrong.unless(erased || order.ship_to.is_some(), || {
                format!(
                    "order {id} has lost the address of {}, who is not erased",
                    order.customer_id
                )
            });
        }
        for (key, answer) in &db.answers {
            let Some(order) = &answer.state else {
                continue;
            };
            let keeps = is_erased(&order.customer_id) && order.ship_to.is_some();
            wrong.unless(!keeps, || {
                format!("the first answer {key} keeps the address of one who is erased")
            });
        }
    });
}

/// Every subscriber got each change once and in order.
fn subscribers_heard_in_order(events: &Events, logged: &Logged, is_whole: bool, wrong: &mut Wrong) {
    for (number, subscription) in events.subscriptions.iter().enumerate() {
        for (id, revisions) in heard_by(subscription) {
            let is_late = logged
                .get(id)
                .is_some_and(|told| !told.ahead_of_key.is_empty());
            let may_lack = is_late || !is_whole;
            let follows = |pair: &[i64]| pair[1] == pair[0] + 1 || may_lack && pair[1] > pair[0];
            let is_in_order = revisions.windows(2).all(follows);
            wrong.unless(is_in_order, || {
                format!("subscriber {number} heard {revisions:?} of order {id}")
            });
        }
    }
}

/// The revisions of each order that a subscription got.
fn heard_by(subscription: &OrdersHeard) -> BTreeMap<&str, Vec<i64>> {
    let mut heard: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (id, revision) in &subscription.heard {
        heard.entry(id).or_default().push(*revision);
    }
    heard
}

/// Every subscriber got all changes of the orders that were placed after it could resume.
fn subscribers_heard_everything(
    events: &Events,
    logged: &Logged,
    system: &System,
    wrong: &mut Wrong,
) {
    let marks: BTreeMap<String, String> = system.orders.look(|db| {
        let rows = db.aggregates.iter();
        let mark = |order: &Order| Some(order.items.first()?.product.guid.clone());
        rows.filter_map(|(id, row)| Some((id.clone(), mark(&row.stored.state)?)))
            .collect()
    });
    for (number, subscription) in events.subscriptions.iter().enumerate() {
        let heard = heard_by(subscription);
        wrong.unless(
            subscription.has_snapshot || !subscription.begins_with_snapshot,
            || format!("subscriber {number} waits for its snapshot"),
        );
        let Some(since) = subscription.resumable_since else {
            continue;
        };
        for (id, told) in logged {
            let revisions = heard.get(id.as_str()).cloned().unwrap_or_default();
            // A change whose key arrives late is not sent live yet.
            let is_late = |it: &i64| told.ahead_of_key.contains(it);
            if told.order.iter().any(is_late) {
                continue;
            }
            wrong.unless(
                !subscription.has_snapshot || revisions.last() == told.order.last(),
                || {
                    let newest = told.order.last();
                    format!(
                        "subscriber {number} knows {revisions:?} of order {id}, whose newest is {newest:?}"
                    )
                },
            );
            let placed = marks.get(id).and_then(|mark| events.placed_at.get(mark));
            if placed.is_none_or(|placed| *placed <= since) {
                continue;
            }
            // A snapshot may have an order at a later revision, if the order was placed while the snapshot was read.
            if subscription.begins_with_snapshot {
                continue;
            }
            wrong.unless(revisions == told.order, || {
                format!(
                    "subscriber {number} heard {revisions:?} of order {id}, of {:?}",
                    told.order
                )
            });
        }
    }
}

/// Every watcher got a customer's changes once and in order.
fn watchers_heard_in_order(events: &Events, wrong: &mut Wrong) {
    for watched in &events.watched {
        let is_in_order = watched.heard.windows(2).all(|pair| pair[1] > pair[0]);
        wrong.unless(is_in_order, || {
            format!("a watcher heard {:?} of {}", watched.heard, watched.id)
        });
    }
}

/// Every watcher got the newest change that was requested while it listened.
fn watchers_heard_everything(events: &Events, logged: &Logged, wrong: &mut Wrong) {
    for watched in &events.watched {
        if !watched.is_open {
            continue;
        }
        let told = logged.get(&watched.id);
        for Acknowledged { revision, mark, .. } in
            events.customers.iter().filter(|it| it.id == watched.id)
        {
            let asked = events.changed_at.get(mark).copied().unwrap_or(0);
            let is_told = told.is_some_and(|told| {
                told.events.contains_key(revision) && !told.ahead_of_key.contains(revision)
            });
            wrong.unless(
                asked <= watched.since || !is_told || watched.heard.contains(revision),
                || {
                    let (id, heard) = (&watched.id, &watched.heard);
                    format!("a watcher of {id} heard {heard:?} and not {revision}")
                },
            );
        }
    }
}
