//! The faults of a run: which, when, and how often. Each seed has its own kinds of faults.

use std::time::Duration;

use tandem_accounts::domain::event::{KEY_TOPIC, TOPIC as CUSTOMERS};
use tandem_orders::domain::event::TOPIC as ORDERS;

use crate::{
    chance::draw,
    log::{self, foreign::Forgers},
    loss::{self, Loss},
    store,
    system::System,
};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// An instance is killed and started again.
    Kill,
    /// An instance is asked to stop and started again.
    Restart,
    /// No broker answers for a while.
    BrokersDown,
    /// A partition has no leader for a while.
    LeaderLost,
    /// The session of a group member ends.
    Rebalance,
    /// A reader by assignment fails.
    TailBroken,
    /// A database fails over to another primary.
    FailOver,
    /// The primary of a database is cut off, and another one takes its place. For a while the old one does not know.
    PrimaryCutOff,
    /// A database does not answer for a while.
    StoreDown,
    /// The clock of a machine jumps.
    ClockJump,
    /// The topic of keys is compacted.
    Compaction,
    /// A foreign producer writes noise to our topics.
    Noise,
    /// Another system claims that one of our customers is erased.
    Forgery,
    /// A foreign producer gives one of our customers another data key or a tombstone, or repeats one of our records of
    /// that kind.
    KeyForgery,
    /// A foreign producer writes in a transaction.
    Transaction,
    /// A topic gets more partitions.
    MorePartitions,
    /// An operator rebuilds the data of an instance.
    Rebuild,
    /// Retention removes old records of a partition, whether they were read or not.
    Retention,
    /// A topic is deleted and created again.
    TopicMadeAnew,
}

const ALL: [Disruption; 17] = [
    Disruption::Kill,
    Disruption::Restart,
    Disruption::BrokersDown,
    Disruption::LeaderLost,
    Disruption::Rebalance,
    Disruption::TailBroken,
    Disruption::FailOver,
    Disruption::PrimaryCutOff,
    Disruption::StoreDown,
    Disruption::ClockJump,
    Disruption::Compaction,
    Disruption::Noise,
    Disruption::Forgery,
    Disruption::KeyForgery,
    Disruption::Transaction,
    Disruption::MorePartitions,
    Disruption::Rebuild,
];

/// The faults that make a log lose records. Only for runs in which it may.
const LOSSES: [Disruption; 2] = [Disruption::Retention, Disruption::TopicMadeAnew];

/// The largest error of a clock in milliseconds. The clocks of two instances may differ by 5 s.
const WRONG: u64 = 2_400;

/// The faults of this run, with or without losses of the log.
#[must_use]
pub fn disruptions(loses: bool, forgers: Forgers) -> Vec<Disruption> {
    let share = draw(|chance| chance.between(100, 900));
    let all = ALL.iter().copied();
    // Records of the topic of keys name no system, so a foreign record there is always in our name.
    let may_be = |it: &Disruption| *it != Disruption::KeyForgery || forgers == Forgers::Anybody;
    let mut disruptions: Vec<Disruption> = all
        .filter(|_| draw(|chance| chance.happens(share)))
        .filter(may_be)
        .collect();
    if loses {
        let one = draw(|chance| chance.pick(&LOSSES).copied());
        let other = draw(|chance| chance.happens(300)).then_some(LOSSES);
        disruptions.extend(one.into_iter().chain(other.into_iter().flatten()));
    }
    disruptions
}

/// Sets the probabilities of faults on the way to log and store from now on.
pub fn set_odds(system: &System, forgers: Forgers) {
    let often = |most: u64| {
        draw(|chance| {
            if chance.happens(500) {
                chance.below(most)
            } else {
                0
            }
        })
    };
    system.cluster.set_odds(log::Odds {
        lost_acknowledgement: often(80),
        lost_record: often(80),
        late_record: often(40),
        duplicate: often(50),
        lost_question: often(60),
        other_system: match forgers {
            Forgers::Anybody => 500,
            Forgers::OtherSystems => 1_000,
        },
    });
    let odds = || store::Odds {
        lost_request: often(40),
        lost_answer: often(40),
        slow: often(30),
    };
    system.customers.set_odds(odds());
    system.orders.set_odds(odds());
}

/// Ends all faults and starts everything.
pub fn rest(system: &System) {
    system
        .world
        .note(|| "everything is well from now on".to_owned());
    system.cluster.set_odds(log::Odds::default());
    system.customers.set_odds(store::Odds::default());
    system.orders.set_odds(store::Odds::default());
    system.cluster.come_back();
    system.customers.come_back();
    system.orders.come_back();
    system.start_all();
}

fn milliseconds(first: u64, last: u64) -> Duration {
    Duration::from_millis(draw(|chance| chance.between(first, last)))
}

/// Causes faults for a time.
pub async fn rage(system: System, disruptions: Vec<Disruption>, time: Duration) {
    let end = system.world.elapsed() + u64::try_from(time.as_nanos()).unwrap_or_default();
    while system.world.elapsed() < end {
        system.world.sleep(milliseconds(200, 7_000)).await;
        if let Some(disruption) = draw(|chance| chance.pick(&disruptions).copied()) {
            make(&system, disruption);
        }
    }
}

fn some_topic() -> &'static str {
    let topic = draw(|chance| chance.pick(&[CUSTOMERS, KEY_TOPIC, ORDERS]).copied());
    topic.unwrap_or(CUSTOMERS)
}

fn make(system: &System, disruption: Disruption) {
    system.world.note(|| format!("disruption: {disruption:?}"));
    let of_accounts = draw(|chance| chance.happens(500));
    let number = draw(|chance| chance.below(system.accounts_slots.len() as u64));
    let number = usize::try_from(number).unwrap_or_default();
    match disruption {
        Disruption::Kill | Disruption::Restart => {
            match (disruption, of_accounts) {
                (Disruption::Kill, true) => system.kill_accounts(number),
                (Disruption::Kill, false) => system.kill_orders(number),
                (_, true) => system.stop_accounts(number),
                (_, false) => system.stop_orders(number),
            }
            let again = system.clone();
            let pause = milliseconds(1_500, 12_000);
            system.world.later(pause, move || {
                if of_accounts {
                    again.start_accounts(number);
                } else {
                    again.start_orders(number);
                }
            });
        }
        Disruption::BrokersDown => system.cluster.go_away(milliseconds(100, 25_000)),
        Disruption::LeaderLost => {
            let topic = some_topic();
            let count = system.cluster.partitions(topic) as u64;
            let partition = usize::try_from(draw(|chance| chance.below(count)));
            let time = milliseconds(100, 25_000);
            system
                .cluster
                .lose_leader(topic, partition.unwrap_or_default(), time);
        }
        Disruption::Rebalance => system.cluster.expire_a_member(),
        Disruption::TailBroken => system.cluster.break_a_tail(),
        Disruption::FailOver => {
            let time = milliseconds(1, 6_000);
            if of_accounts {
                system.customers.fail_over(time);
            } else {
                system.orders.fail_over(time);
            }
        }
        Disruption::PrimaryCutOff => {
            let (away, lingers) = (milliseconds(1, 6_000), milliseconds(500, 10_000));
            if of_accounts {
                system.customers.depose(away, lingers);
            } else {
                system.orders.depose(away, lingers);
            }
        }
        Disruption::StoreDown => {
            let time = milliseconds(100, 15_000);
            if of_accounts {
                system.customers.go_away(time);
            } else {
                system.orders.go_away(time);
            }
        }
        Disruption::ClockJump => {
            let wrong = draw(|chance| chance.below(2 * WRONG));
            let wrong = i64::try_from(wrong).unwrap_or_default() - WRONG.cast_signed();
            if of_accounts {
                system.accounts_slots[number].wrong.set(wrong);
            } else {
                system.orders_slots[number].wrong.set(wrong);
            }
        }
        Disruption::Noise => system.cluster.make_noise(some_topic()),
        Disruption::Forgery => system.cluster.forge(CUSTOMERS),
        Disruption::KeyForgery => system.cluster.forge_key(KEY_TOPIC),
        Disruption::Transaction => {
            let time = milliseconds(100, 20_000);
            system.cluster.transact(some_topic(), time);
        }
        Disruption::MorePartitions => {
            let topic = some_topic();
            if system.cluster.partitions(topic) < 6 {
                system.cluster.add_partitions(topic, 1);
            }
        }
        Disruption::Rebuild => {
            if of_accounts {
                system.rebuild_accounts(number);
            } else {
                system.rebuild_orders(number);
            }
        }
        Disruption::Retention => loss::lose(system, Loss::Retention),
        Disruption::TopicMadeAnew => loss::lose(system, Loss::MadeAnew),
        Disruption::Compaction => {
            let spared = draw(|chance| chance.below(4)).cast_signed();
            system.cluster.compact(KEY_TOPIC, spared);
        }
    }
}
