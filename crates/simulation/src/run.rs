//! One run: a system, its clients and its faults, all from one seed, and the verdict of the checker.

use std::time::Duration;

use futures::future::join_all;
use tandem_accounts::domain::event::KEY_TOPIC;

use crate::{
    chance::{self, Chance, draw},
    checker,
    clients::{Client, Known, change_one_at_once},
    cut_off,
    faults::Faults,
    history::History,
    key_topic,
    log::foreign::Forgers,
    loss, nemesis, replaced_key, replaced_sealing_key,
    store::Kind,
    subscribers,
    system::{Layout, System},
    world::World,
};

/// The longest time that the run may take to come to rest.
const REST: Duration = Duration::from_secs(120);
/// How often the checker looks whether it has.
const LOOK: Duration = Duration::from_secs(3);

/// The options of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether the whole trace is written to standard error.
    pub trace: bool,
    /// The planted faults.
    pub faults: Faults,
    /// In whose name events are forged.
    pub forgers: Forgers,
    /// Whether the log may lose records, by retention or because a topic is created again.
    pub loses: bool,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The violations, as sentences.
    pub violations: Vec<String>,
    /// A digest of everything that happened.
    pub digest: u64,
    /// The newest lines of the trace.
    pub newest: Vec<String>,
    /// The virtual time that it took.
    pub simulated: Duration,
    /// The number of requests.
    pub requests: u64,
    /// The number of answered requests.
    pub answered: u64,
}

/// Runs a seed.
///
/// # Errors
/// When the operating system does not allow a runtime to be created.
pub fn run(seed: u64, options: &Options) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime.block_on(simulate(seed, options)))
}

fn layout(seed: u64) -> Layout {
    // These are drawn from their own stream. So the final steps and the mixing of keys change nothing else in a run.
    let mut of_keys = Chance::new(!seed);
    let is_embedded = draw(|chance| chance.happens(300));
    let instances = draw(|chance| chance.between(1, 3));
    let partitions = draw(|chance| chance.between(1, 3));
    Layout {
        instances: if is_embedded {
            1
        } else {
            usize::try_from(instances).unwrap_or(1)
        },
        kind: if is_embedded {
            Kind::Embedded
        } else {
            Kind::Replicated
        },
        partitions: usize::try_from(partitions).unwrap_or(1),
        mixes_sealing_keys: of_keys.happens(300),
        replaces_signing_keys: of_keys.happens(200),
        cuts_a_primary_off: of_keys.happens(150),
    }
}

/// Waits until there are no violations, or the time is over.
async fn until_well(system: &System, judge: impl Fn() -> Vec<String>) -> Vec<String> {
    let world = &system.world;
    let rested = world.elapsed() + u64::try_from(REST.as_nanos()).unwrap_or_default();
    loop {
        world.sleep(LOOK).await;
        let violations = judge();
        let is_well = violations.is_empty() && !system.cluster.is_held_back();
        if is_well || world.elapsed() >= rested {
            return violations;
        }
        system.start_all();
    }
}

/// Whether the signing keys are replaced in this run. Not if claims of the topics may be in several partitions, because
/// partitions were added to the topic of keys: a service that takes over uses the last claim, and between partitions no
/// claim is the last.
fn replaces_signing_keys(system: &System, layout: Layout, options: &Options) -> bool {
    layout.replaces_signing_keys && !options.loses && has_its_partitions(system, layout)
}

/// Whether the topic of keys still has its original partitions. It is meant to have one, because between several none
/// of its records is the last.
fn has_its_partitions(system: &System, layout: Layout) -> bool {
    system.cluster.partitions(KEY_TOPIC) == layout.partitions
}

/// Whether the replacement of the sealing key is completed. Not if an older record of a data key may stay forever in
/// another partition of its topic.
fn replaces_sealing_key(system: &System, layout: Layout, options: &Options) -> bool {
    layout.mixes_sealing_keys && !options.loses && has_its_partitions(system, layout)
}

async fn simulate(seed: u64, options: &Options) -> Report {
    chance::begin(Chance::new(seed));
    options.faults.plant();
    let world = World::begin(options.trace);
    let (layout, history, known) = (layout(seed), History::default(), Known::default());
    let disruptions = nemesis::disruptions(options.loses, options.forgers);
    world.note(|| format!("seed {seed}: {layout:?}, {disruptions:?}"));
    let system = System::new(&world, layout, &options.faults);
    system.start_all();
    nemesis::set_odds(&system, options.forgers);
    for _ in 0..draw(|chance| chance.between(1, 2)) {
        world.spawn(subscribers::follow_orders(system.clone(), history.clone()));
        let followed =
            subscribers::follow_customers(system.clone(), history.clone(), known.clone());
        world.spawn(followed);
    }
    let time = Duration::from_secs(draw(|chance| chance.between(10, 60)));
    let rage = world.task(nemesis::rage(system.clone(), disruptions, time));
    let clients = draw(|chance| chance.between(1, 4));
    let requests = usize::try_from(draw(|chance| chance.between(5, 20))).unwrap_or_default();
    let clients = (0..clients).map(|number| {
        let client = Client::new(&system, &history, &known, &format!("c{number}"));
        world.task(client.run(requests))
    });
    join_all(clients).await;
    let _ = rage.await;
    nemesis::rest(&system);
    let mut violations = Vec::new();
    if system.losses.is_any() {
        violations = until_well(&system, || loss::untold(&system)).await;
        violations.extend(loss::mend(&system).await);
    }
    if violations.is_empty() {
        violations = until_well(&system, || checker::judge(&system, &history)).await;
    }
    if violations.is_empty() && replaces_sealing_key(&system, layout, options) {
        violations =
            replaced_sealing_key::replace(&system, &history, &known, options.forgers).await;
        if violations.is_empty() {
            violations = until_well(&system, || {
                let mut wrong = checker::judge(&system, &history);
                wrong.extend(replaced_sealing_key::sealed_before(&system));
                wrong
            })
            .await;
        }
        if violations.is_empty() {
            violations = replaced_sealing_key::read_anew(&system).await;
        }
    }
    if violations.is_empty() && replaces_signing_keys(&system, layout, options) {
        violations = replaced_key::replace(&system, &history, &known).await;
        if violations.is_empty() {
            violations = until_well(&system, || checker::judge(&system, &history)).await;
        }
    }
    if violations.is_empty() {
        if layout.cuts_a_primary_off {
            cut_off::subscribe_behind_it(&system, &history, &known).await;
        }
        change_one_at_once(&system, &history, &known).await;
        violations = until_well(&system, || checker::judge(&system, &history)).await;
    }
    if violations.is_empty() {
        system.rebuild_in_peace().await;
        violations = checker::judge(&system, &history);
    }
    if violations.is_empty() {
        violations = key_topic::publish_and_judge(&system).await;
    }
    for violation in &violations {
        world.note(|| format!("wrong: {violation}"));
    }
    let (requests, answered) = {
        let events = history.events();
        (events.requests, events.answered)
    };
    let report = Report {
        seed,
        violations,
        digest: world.digest(),
        newest: world.newest(),
        simulated: Duration::from_nanos(world.elapsed()),
        requests,
        answered,
    };
    system.end();
    world.end();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sealing_key_is_being_replaced_in_some_seeds_and_in_others_not() {
        let is_mixed = |seed: &u64| {
            chance::begin(Chance::new(*seed));
            layout(*seed).mixes_sealing_keys
        };
        let mixed = (0..100).filter(is_mixed).count();
        assert!((15..50).contains(&mixed), "{mixed} of 100");
    }

    fn replacing() -> impl Iterator<Item = u64> {
        (0..100).filter(|seed| {
            chance::begin(Chance::new(*seed));
            layout(*seed).replaces_signing_keys
        })
    }

    #[test]
    fn the_signing_keys_are_replaced_in_some_seeds_and_in_others_not() {
        let replaced = replacing().count();
        assert!((8..40).contains(&replaced), "{replaced} of 100");
    }

    #[test]
    fn what_the_old_signing_keys_have_signed_goes_on_to_count_beside_what_the_new_ones_sign() {
        for seed in replacing().take(3) {
            let report = run(seed, &Options::default());
            let violations = report.map(|report| report.violations);
            assert!(
                violations.as_ref().is_ok_and(Vec::is_empty),
                "{seed}: {violations:?}"
            );
        }
    }
}
