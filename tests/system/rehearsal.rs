//! Rehearses what a cluster does to its pods. Two instances of each role run on real servers, with callers and live
//! subscribers. They are restarted in turn, scaled out and in, evicted, and upgraded role by role. No request fails if
//! its caller retries as documented, nothing is lost, and no subscriber misses a change or gets one twice.
//!
//! `TANDEM_REHEARSAL_BEFORE` names the binary of an earlier commit. Everything begins with that one, and the upgrade is
//! to this one. Without it the upgrade is from this binary to itself, which rehearses the procedure but not
//! compatibility. The test prints which of the two it was.

#[path = "rehearsal/callers.rs"]
mod callers;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tandem_backends::require;

use self::callers::{Callers, Requests};
use super::support::{
    TANDEM,
    checker::{System, check},
    command_of,
    fleet::{Fleet, Forwarder, Instance, Stopped},
    follower::{End, Follower, ends},
    poll,
};

/// The same as `terminationGracePeriodSeconds` in the manifests.
const GRACE: Duration = Duration::from_secs(30);
const CALLERS: u64 = 4;
const SUBSCRIBERS: usize = 20;
/// Writes that must be answered before the next process is stopped.
const WRITES: u64 = 40;

/// The instances of a role, and a forwarder to those that are ready: a Deployment with its Service.
struct Role {
    service: &'static str,
    instances: Vec<Instance>,
    behind: Forwarder,
}

impl Role {
    fn new(fleet: &Fleet, service: &'static str) -> Self {
        Self {
            service,
            instances: Vec::new(),
            behind: fleet.changing_forwarder(),
        }
    }

    fn leads_to_its_instances(&self) {
        let ports = self.instances.iter().map(|it| it.port).collect();
        self.behind.leads_to(ports);
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.behind.port)
    }
}

struct Cluster {
    roles: [Role; 3],
    callers: Callers,
    followers: Vec<Follower>,
    stopped: Vec<Stopped>,
    told: Vec<Phase>,
    // Declared last, because instances must end before the servers that they use.
    fleet: Fleet,
}

/// The effects of a phase on callers and subscribers.
struct Phase {
    name: &'static str,
    took: Duration,
    requests: Requests,
    pause: Duration,
    ends: BTreeMap<End, usize>,
}

const ACCOUNTS: usize = 0;
const ORDERS: usize = 1;
const GATEWAYS: usize = 2;

impl Cluster {
    /// Two instances of each role, with this binary, and no callers yet.
    fn start(program: &Path) -> Self {
        let fleet = Fleet::new();
        let mut roles = ["accounts", "orders", "router"].map(|service| Role::new(&fleet, service));
        for role in [ACCOUNTS, ORDERS, GATEWAYS, ACCOUNTS, ORDERS, GATEWAYS] {
            add(&fleet, &mut roles, role, program);
        }
        let front = roles[GATEWAYS].behind.port;
        let followers: Vec<Follower> = (0..SUBSCRIBERS)
            .map(|number| Follower::start(&fleet, number, front, None))
            .collect();
        poll("everybody has a snapshot", || {
            followers.iter().all(|it| it.items() > 0).then_some(())
        });
        let callers = Callers::start(&fleet, CALLERS, front);
        Self {
            roles,
            callers,
            followers,
            stopped: Vec::new(),
            told: Vec::new(),
            fleet,
        }
    }

    /// Adds an instance to a role. It gets requests when it is ready.
    fn add(&mut self, role: usize, program: &Path) {
        add(&self.fleet, &mut self.roles, role, program);
    }

    /// Removes an instance: it gets no new connections, and is then stopped.
    fn take_away(&mut self, role: usize, number: usize) {
        let role = &mut self.roles[role];
        let mut going = role.instances.remove(number);
        role.leads_to_its_instances();
        self.stopped.push(going.stop(GRACE));
    }

    /// Runs a part of the rehearsal and records its effects on callers and subscribers.
    fn phase(&mut self, name: &'static str, part: impl FnOnce(&mut Self)) {
        let (begun, before) = (Instant::now(), ends(&self.followers));
        part(self);
        self.callers.go_on(WRITES);
        let mut ends = ends(&self.followers);
        for (end, count) in before {
            *ends.entry(end).or_default() -= count;
        }
        ends.retain(|_, count| *count > 0);
        let pauses = self.followers.iter().map(Follower::longest_pause);
        let phase = Phase {
            name,
            took: begun.elapsed(),
            requests: self.callers.requests(),
            pause: pauses.max().unwrap_or_default(),
            ends,
        };
        println!("{}", phase.line());
        self.told.push(phase);
    }

    fn restart_each_in_turn(&mut self) {
        for role in [ACCOUNTS, ORDERS, GATEWAYS] {
            for number in 0..self.roles[role].instances.len() {
                let instance = &mut self.roles[role].instances[number];
                self.stopped.push(instance.stop(GRACE));
                self.fleet.start_again(instance);
                self.callers.go_on(WRITES);
            }
        }
    }

    fn scale_each_out_and_in(&mut self, program: &Path) {
        for role in [ACCOUNTS, ORDERS, GATEWAYS] {
            self.add(role, program);
            self.callers.go_on(WRITES);
            self.take_away(role, 0);
            self.callers.go_on(WRITES);
        }
    }

    /// Like a drained node: the pod is removed first, and a new one starts elsewhere.
    fn evict_one_of_each(&mut self, program: &Path) {
        for role in [ACCOUNTS, ORDERS, GATEWAYS] {
            self.take_away(role, 0);
            self.callers.go_on(WRITES);
            self.add(role, program);
            self.callers.go_on(WRITES);
        }
    }

    /// In the order of docs/production.md. A new instance is ready before an old one is stopped.
    fn upgrade_role_by_role(&mut self, to: &Path) {
        for role in [ORDERS, ACCOUNTS, GATEWAYS] {
            for _ in 0..self.roles[role].instances.len() {
                self.add(role, to);
                self.take_away(role, 0);
                self.callers.go_on(WRITES);
            }
        }
    }
}

fn add(fleet: &Fleet, roles: &mut [Role; 3], role: usize, program: &Path) {
    let (accounts, orders) = (roles[ACCOUNTS].url(), roles[ORDERS].url());
    let role = &mut roles[role];
    let instance = if role.service == "router" {
        fleet.gateway_of(program, &accounts, &orders)
    } else {
        fleet.instance_of(program, role.service)
    };
    role.instances.push(instance);
    role.leads_to_its_instances();
}

impl Phase {
    fn line(&self) -> String {
        let Requests {
            sent,
            retried,
            reasons,
            most_tries,
            longest,
            failed,
        } = &self.requests;
        format!(
            "{}: {:.0?}; {sent} requests, {retried} retried ({reasons:?}, at most {most_tries} tries, {longest:.2?}), {} failed; \
             subscribers: longest pause {:.2?}, connections ended by {:?}",
            self.name,
            self.took,
            failed.len(),
            self.pause,
            self.ends
        )
    }
}

/// The output of a binary's `--version`.
fn version(program: &Path) -> String {
    let output = command_of(program).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().collect::<Vec<_>>().join(", ")
}

#[test]
fn a_cluster_that_is_restarted_scaled_evicted_and_upgraded_fails_nobody_and_loses_nothing() {
    require!(mongod, kafka);
    let now = Path::new(TANDEM);
    let before = std::env::var_os("TANDEM_REHEARSAL_BEFORE").map(PathBuf::from);
    match &before {
        Some(before) => {
            println!("REHEARSAL: from {} to {}", version(before), version(now));
            assert_ne!(version(before), version(now), "it is no earlier commit");
        }
        None => println!(
            "REHEARSAL: TANDEM_REHEARSAL_BEFORE is not set, so this binary is upgraded to itself: {}",
            version(now)
        ),
    }
    let before = before.as_deref().unwrap_or(now);

    let mut cluster = Cluster::start(before);
    cluster.phase("nothing happens", |_| ());
    cluster.phase("restarted in turn", Cluster::restart_each_in_turn);
    cluster.phase("scaled out and in", |it| it.scale_each_out_and_in(before));
    cluster.phase("evicted", |it| it.evict_one_of_each(before));
    cluster.phase("upgraded", |it| it.upgrade_role_by_role(now));

    let history = cluster.callers.finish(&cluster.fleet);
    let late = cluster.callers.requests();
    let failed: Vec<&String> = cluster
        .told
        .iter()
        .flat_map(|phase| &phase.requests.failed)
        .chain(&late.failed)
        .collect();
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());

    // Each subscriber has each change once, in order, and none is missing.
    let orders = history.orders.iter();
    let orders = orders.map(|(id, (revision, _))| (id.as_str(), *revision));
    for follower in &cluster.followers {
        follower.has(orders.clone());
        let held = follower.held.lock().unwrap();
        assert!(held.faults.is_empty(), "{:#?}", held.faults);
        assert_eq!(
            held.orders.len(),
            history.orders.len(),
            "orders that nobody placed"
        );
    }
    let ended = ends(&cluster.followers);
    assert_eq!(ended.get(&End::Complete), None, "{ended:?}");
    assert_eq!(ended.get(&End::Silence), None, "{ended:?}");

    let report = check(
        &System {
            accounts: &cluster.roles[ACCOUNTS].instances[0].graphql(),
            orders: &cluster.roles[ORDERS].instances[0].graphql(),
            kafka: cluster.fleet.kafka_client(),
        },
        &history,
    );
    assert_eq!(report.customers, history.customers.len());
    assert_eq!(report.orders, history.orders.len(), "an order placed twice");

    let killed = cluster.stopped.iter().filter(|it| it.killed).count();
    let slowest = cluster.stopped.iter().map(|it| it.after).max();
    assert_eq!(killed, 0, "did not end within their grace");
    let all = |count: fn(&Requests) -> usize| -> usize {
        let phases = cluster.told.iter().map(|phase| count(&phase.requests));
        phases.sum::<usize>() + count(&late)
    };
    let items: usize = cluster.followers.iter().map(Follower::items).sum();
    let pause = cluster.told.iter().map(|phase| phase.pause).max();
    println!(
        "REHEARSED: {} requests, {} retried, 0 failed beyond retry; {} changes, 0 lost; {SUBSCRIBERS} subscribers, {items} items, \
         0 gaps or duplicates, longest pause {:.2?}; {} processes stopped, 0 killed, slowest {:.2?}",
        all(|it| it.sent),
        all(|it| it.retried),
        report.revisions,
        pause.unwrap_or_default(),
        cluster.stopped.len(),
        slowest.unwrap_or_default(),
    );
}
