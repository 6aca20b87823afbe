//! A disk that is full: the service says that its store is away, and goes on by itself when there is room again.
//!
//! The limit is that of the process on the size of its files, which takes effect and ends without a file system of its own.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};
use tandem_backends::free_port;

use super::support::{
    Client, Process, Signal, TANDEM,
    graph::{CREATE, customer_input},
    poll,
};

/// How long the end may take.
const END: Duration = Duration::from_secs(20);

/// Sets how large the files of a process may become, in bytes or `unlimited`.
fn limit(process: u32, bytes: &str) {
    let done = Command::new("prlimit")
        .args(["--pid", &process.to_string(), &format!("--fsize={bytes}:")])
        .status()
        .unwrap();
    assert!(done.success());
}

/// Whether the limit can be set here.
fn can_limit() -> bool {
    if Command::new("prlimit").arg("--version").output().is_ok() {
        return true;
    }
    println!("LEFT OUT: a disk that is full needs prlimit, of util-linux");
    assert!(std::env::var_os("TANDEM_REQUIRE_BACKENDS").is_none());
    false
}

/// A system whose processes may be given a limit.
struct Limited {
    directory: tempfile::TempDir,
    process: Process,
    accounts: String,
    orders: String,
}

impl Limited {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [accounts, orders, gateway, broker] =
            [(); 4].map(|()| free_port().unwrap().to_string());
        // The signal that comes with the limit is ignored, so that a write fails as on a full disk.
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "trap '' XFSZ; exec \"$0\" \"$@\"",
                TANDEM,
                "up",
                "--data-dir",
            ])
            .arg(directory.path())
            .args(["--accounts-port", &accounts, "--orders-port", &orders])
            .args(["--gateway-port", &gateway, "--broker-port", &broker]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TANDEM_") {
                command.env_remove(name);
            }
        }
        let mut process = Process::start(&mut command);
        process.wait_for_line("a line that begins with `ready`", |line| {
            line.starts_with("ready")
        });
        Self {
            directory,
            process,
            accounts: format!("http://127.0.0.1:{accounts}"),
            orders: format!("http://127.0.0.1:{orders}"),
        }
    }

    /// The process of a service that was started last.
    fn pid(&self, service: &str) -> u32 {
        let output = self.process.output();
        let started = format!("started {service} (pid ");
        let (_, rest) = output.rsplit_once(&started).unwrap();
        rest.split_once(')').unwrap().0.parse().unwrap()
    }

    /// Creates a customer with much to store.
    fn create(&self, client: &Client, id: &str) -> Value {
        let mut input = customer_input(id, "Lovelace");
        let address = input["addresses"][0].clone();
        input["addresses"] = json!(vec![address; 60]);
        let url = format!("{}/graphql", self.accounts);
        client.graphql(&url, CREATE, json!({"input": input}))
    }
}

#[test]
fn a_broker_without_room_loses_nothing_and_comes_back_by_itself() {
    if !can_limit() {
        return;
    }
    let mut system = Limited::start();
    let client = Client::new();
    let services = ["broker", "accounts", "orders"];
    let pids = services.map(|service| system.pid(service));
    let replicated = |system: &Limited, id: &str| {
        poll("the customer is in the replica", || {
            let read = client.graphql(
                &format!("{}/graphql", system.orders),
                "query($id: ID!) { orderingCustomer(id: $id) { id } }",
                json!({"id": id}),
            );
            (read["data"]["orderingCustomer"]["id"] == json!(id)).then_some(())
        });
    };
    assert!(system.create(&client, "c0")["errors"].is_null());
    replicated(&system, "c0");
    // Nothing fits any more: what is stored waits, and health says so.
    limit(pids[0], "1");
    for number in 1..20 {
        assert!(system.create(&client, &format!("c{number}"))["errors"].is_null());
    }
    let outbox = |pending: bool| {
        poll("what is said of the outbox", || {
            let metrics = client.try_get(&format!("{}/actuator/prometheus", system.accounts))?;
            let line = metrics
                .body
                .lines()
                .find(|line| line.starts_with("outbox_pending_events{"))?;
            (line.ends_with(" 0") != pending).then_some(())
        });
    };
    outbox(true);
    limit(pids[0], "unlimited");
    outbox(false);
    for number in 1..20 {
        replicated(&system, &format!("c{number}"));
    }
    // All of them full at once, and with room again.
    for pid in pids {
        limit(pid, "1");
    }
    poll("the store says that it is away", || {
        let refused = system.create(&client, "refused");
        (!refused["errors"].is_null()).then_some(())
    });
    for pid in pids {
        limit(pid, "unlimited");
    }
    poll("everything works again", || {
        let created = system.create(&client, "again");
        let is_there = created["errors"][0]["extensions"]["code"] == json!("ALREADY_EXISTS");
        (created["errors"].is_null() || is_there).then_some(())
    });
    replicated(&system, "again");
    assert_eq!(
        services.map(|service| system.pid(service)),
        pids,
        "restarted"
    );
    // Full again, all of it still ends in time.
    for pid in pids {
        limit(pid, "1");
    }
    system.create(&client, "refused too");
    system.process.signal(Signal::INT);
    system.process.wait_for_end(END);
}

#[test]
fn a_store_without_room_is_away_and_comes_back_by_itself() {
    if !can_limit() {
        return;
    }
    let mut system = Limited::start();
    let pid = system.pid("accounts");
    let client = Client::new();
    let url = system.accounts.clone();
    let create = |number: usize| system.create(&client, &format!("c{number}"));
    assert!(create(0)["errors"].is_null());
    let size = std::fs::metadata(system.directory.path().join("accounts.redb"))
        .unwrap()
        .len();
    limit(pid, &size.to_string());
    let refused = (1..20_000)
        .map(create)
        .find(|answer| !answer["errors"].is_null());
    let refused = refused.expect("the file has a limit");
    assert_eq!(
        refused["errors"][0]["extensions"]["code"], "UNAVAILABLE",
        "{refused:#}"
    );
    // What was refused may have been large, and less may still fit: now nothing does.
    limit(pid, "1");
    poll("the service says that its store is away", || {
        assert!(!create(20_000)["errors"].is_null(), "nothing fits");
        let health = client.try_get(&format!("{url}/actuator/health/readiness"))?;
        (health.status == 503).then_some(())
    });
    limit(pid, "unlimited");
    poll("the store is there again", || {
        create(20_001)["errors"].is_null().then_some(())
    });
    assert_eq!(system.pid("accounts"), pid, "the service was restarted");
    let read = client.data(
        &format!("{url}/graphql"),
        "{ customer(id: \"c0\") { revision } }",
        json!({}),
    );
    assert_eq!(read["customer"]["revision"], json!(1));
    // Full again, it still ends in time.
    limit(pid, &size.to_string());
    system.process.signal(Signal::TERM);
    system.process.wait_for_end(END);
}
