//! What a second instance of accounts, orders and the gateway adds, on real servers, and how much processor time each
//! process uses per request.
//!
//!     tests/backends/install.sh && cargo bench --bench scale
//!     cargo bench --bench scale -- orders        only these: accounts, orders, gateway
//!
//! The same load, 128 requests in flight, goes to one instance and to two, in turns. The second one is started for its
//! turn and stopped after it, and the median of the rounds is shown. Each instance is pinned to one processor
//! (`taskset`). With too few processors for all, a second instance adds nothing. The processor time of each process per
//! request is still valid then; `docs/scale.md` computes from it.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::time::Duration;

use serde_json::json;
use tandem_backends::KafkaOptions;

mod load;
mod processors;
#[path = "../report/mod.rs"]
mod report;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;

use load::{CUSTOMERS, ROLES, Role, known, next_id};
use processors::Places;
use report::{Bars, Words, say};
use shared::{LeanClient, Processes, Spent, median, send_all};
use support::{
    Client,
    fleet::{Fleet, Instance, graphql},
    graph::{CREATE, ORDERING_CUSTOMER, PLACE, PUBLISHED, customer_input, order_input},
    poll_for,
};

/// An odd number, for the median.
const ROUNDS: usize = 3;
pub const ROUND: Duration = Duration::from_secs(4);
/// Rounds of creations before the measurement: Kafka's JVM compiles code in its first minutes.
const WARM_UP: usize = 20;
/// Customers that are looked up to know that every partition has its reader. They are enough to be in all partitions by
/// chance.
const MARKS: usize = 32;
const STOPS_WITHIN: Duration = Duration::from_secs(40);

/// One instance of each role, with a place for a second one.
struct System {
    /// Accounts, orders, gateway: in the order of [`ROLES`].
    first: Vec<Instance>,
    places: Places,
    /// Declared after the instances, so that they are dropped before their servers.
    fleet: Fleet,
}

/// The results of one load per round: requests per second, and processor time of these processes per request.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    processes: Processes,
    spent: Spent,
}

impl Measured {
    fn told(&self, what: &str) -> String {
        self.processes.told(what, &self.spent)
    }
}

fn main() {
    let names = ROLES.each_ref().map(|role| role.name);
    let words = Words::among(&names);
    report::begin("scale", "Two of each", words.is_empty());
    say!("# One and two instances on MongoDB and Kafka");
    let system = System::start();
    let mut groups = Vec::new();
    for (number, role) in ROLES.iter().enumerate() {
        if words.is_empty() || words.has(role.name) {
            groups.extend(system.measure(number, role));
        }
    }
    report::bars(
        "rates",
        &Bars {
            title: "What a second instance adds, 128 requests in flight",
            unit: "a second",
            series: &["one", "two"],
            groups,
        },
    );
    report::end();
}

impl System {
    fn start() -> Self {
        let fleet = Fleet::with(KafkaOptions::for_measuring());
        let places = Places::find();
        places.servers(fleet.servers().map(|(_, process)| process));
        let mut first: Vec<Instance> = Vec::new();
        for (number, service) in ["accounts", "orders"].into_iter().enumerate() {
            first.push(places.start(number, || fleet.instance(service)));
        }
        let gateway = places.start(2, || fleet.gateway(&first[0].url, &first[1].url));
        first.push(gateway);
        let system = Self {
            first,
            places,
            fleet,
        };
        system.prepare();
        system
    }

    /// Makes customers with an order each, and warms up the servers.
    fn prepare(&self) {
        let accounts = LeanClient::new(&self.first[0].graphql(), CREATE);
        let orders = LeanClient::new(&self.first[1].graphql(), PLACE);
        let runtime = &self.fleet.runtime;
        runtime.block_on(send_all(16, CUSTOMERS, async |number: usize| {
            let input = customer_input(&known(number), "Lovelace");
            accounts.ask(json!({"input": input})).await;
        }));
        self.settled(&[]);
        runtime.block_on(send_all(16, CUSTOMERS, async |number: usize| {
            orders
                .ask(json!({"input": order_input(&known(number))}))
                .await;
        }));
        println!("warming up");
        for _ in 0..WARM_UP {
            ROLES[0].loads[0].run(runtime, &graphql(&[&self.first[0]]));
        }
        self.settled(&[]);
    }

    /// Waits until every partition has its reader and the outbox is empty.
    fn settled(&self, seconds: &[&Instance]) {
        let client = Client::new();
        let marks: Vec<String> = (0..MARKS).map(|_| next_id()).collect();
        for id in &marks {
            let input = json!({"input": customer_input(id, "Lovelace")});
            client.data(&self.first[0].graphql(), CREATE, input);
        }
        for id in &marks {
            poll_for(PUBLISHED, "orders has the customers", || {
                let shown = client
                    .try_graphql(
                        &self.first[1].graphql(),
                        ORDERING_CUSTOMER,
                        json!({"id": id}),
                    )
                    .ok()?;
                shown["data"]["orderingCustomer"]["replica"]["revision"].as_i64()
            });
        }
        let services = self.first[..2].iter().chain(seconds.iter().copied());
        for service in services.filter(|it| it.service != "router") {
            poll_for(PUBLISHED, "everything is published", || {
                let metrics = client.try_get(&format!("{}/actuator/prometheus", service.url))?;
                let mut lines = metrics.body.lines();
                let pending = lines.find_map(|line| line.strip_prefix("outbox_pending_events{"))?;
                pending.ends_with(" 0").then_some(())
            });
        }
    }

    /// Starts a second instance of a role, on another processor than the first.
    fn second(&self, number: usize, role: &Role) -> Instance {
        let place = self.places.of_second(number);
        self.places.start(place, || match role.service {
            "router" => self.fleet.gateway(&self.first[0].url, &self.first[1].url),
            service => self.fleet.instance(service),
        })
    }

    /// The participating processes, the second instance last.
    fn processes(&self, second: Option<&Instance>) -> Processes {
        let first = ROLES.iter().map(|role| role.name).zip(&self.first);
        let first = first.map(|(name, instance)| (name, instance.process.id()));
        let second = second.map(|instance| ("the second", instance.process.id()));
        let client = ("client", std::process::id());
        let servers = self.fleet.servers();
        Processes::new(first.chain([client]).chain(servers).chain(second))
    }

    /// Prints what the role does with one and with two instances. Returns the groups of the chart.
    fn measure(&self, number: usize, role: &Role) -> Vec<(String, Vec<f64>)> {
        let mut measured: [[Measured; 2]; 3] = Default::default();
        for round in 1..=ROUNDS {
            println!("{}: round {round} of {ROUNDS}", role.name);
            self.round(role, &[&self.first[number]], &mut measured, 0);
            let mut second = self.second(number, role);
            self.settled(&[&second]);
            let both = [&self.first[number], &second];
            self.round(role, &both, &mut measured, 1);
            second.stop(STOPS_WITHIN);
            self.settled(&[]);
        }
        say!(
            "\n{:<48} {:>10} {:>10} {:>7} {:>24}",
            role.name,
            "one /s",
            "two /s",
            "ratio",
            "/s a processor, one"
        );
        let mut groups = Vec::new();
        for (load, [one, two]) in role.loads.iter().zip(&measured) {
            let each = one.processes.medians(&one.spent);
            let [of_one, of_two] = [one, two].map(|it| median(it.rates.clone()));
            let ratios = one.rates.iter().zip(&two.rates).map(|(one, two)| two / one);
            say!(
                "{:<48} {of_one:>10.0} {of_two:>10.0} {:>7.2} {:>24.0}",
                load.what,
                median(ratios.collect()),
                // The rate that its process alone could reach on a whole processor.
                1_000_000.0 / each[number]
            );
            say!("{}", one.told("one"));
            say!("{}", two.told("two"));
            groups.push((
                format!("{}, {}", role.name, load.what),
                vec![of_one, of_two],
            ));
        }
        groups
    }

    /// One round of each load at these instances.
    fn round(
        &self,
        role: &Role,
        instances: &[&Instance],
        measured: &mut [[Measured; 2]; 3],
        which: usize,
    ) {
        let urls = graphql(instances);
        let processes = self.processes(instances.get(1).copied());
        for (load, measured) in role.loads.iter().zip(measured) {
            let before = processes.used();
            let (answers, rate) = load.run(&self.fleet.runtime, &urls);
            // Includes the work that the services still have in progress.
            self.settled(&instances[1..]);
            let measured = &mut measured[which];
            measured.spent.add(&before, &processes.used(), answers);
            measured.rates.push(rate);
            measured.processes = processes.clone();
        }
    }
}
