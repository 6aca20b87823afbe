//! Clocks that are days apart, as an administrator may set them. libfaketime gives each process its own time. No
//! decision depends on how old something is, so nobody is erased, lost or refused because of a clock.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tandem_backends::free_port;
use tempfile::TempDir;

use super::support::{
    Client, Process, Tandem,
    graph::{CREATE, PLACE, UPDATE, customer_input, order_input},
    poll, tandem_command,
};

const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";
const REPLICA: &str =
    "query($id: ID!) { orderingCustomer(id: $id) { name { lastName } replica { revision } } }";
const CHANGED: &str =
    "query($id: ID!) { customer(id: $id) { revision changes { nodes { changedAt } } } }";
const SHIPPED: &str = "query($id: ID!) { order(id: $id) { shipTo { address1 } placedAt } }";
const DAYS: i64 = 8;

/// The path of libfaketime, if it is installed.
fn library() -> Option<PathBuf> {
    let given = std::env::var_os("TANDEM_TEST_FAKETIME").map(PathBuf::from);
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib64/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
    ];
    let mut places = given.into_iter().chain(places.map(PathBuf::from));
    let found = places.find(|place| place.exists());
    if found.is_none() {
        println!("LEFT OUT: clocks that are days apart need libfaketime (Debian: faketime)");
        assert!(std::env::var_os("TANDEM_REQUIRE_BACKENDS").is_none());
    }
    found
}

/// Gives processes wrong clocks.
struct Clocks {
    preloaded: String,
    _directory: TempDir,
}

impl Clocks {
    /// `None`, with a message, where that is not possible.
    fn find() -> Option<Self> {
        let library = library()?;
        let directory = tempfile::tempdir().unwrap();
        let beside = directory.path().join("cnd_timedwait.so");
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/system/faketime/cnd_timedwait.c"
        );
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([beside.as_path(), Path::new(source)])
            .status()
            .unwrap();
        assert!(compiled.success(), "the build needs a C compiler anyway");
        Some(Self {
            preloaded: format!("{} {}", library.display(), beside.display()),
            _directory: directory,
        })
    }

    /// The variables that give a process a clock that is this many days ahead. The monotonic clock is not changed: an
    /// administrator cannot set it either, and kernel waits that use it would never end.
    fn ahead(&self, days: i64) -> [(&'static str, String); 3] {
        [
            ("LD_PRELOAD", self.preloaded.clone()),
            ("FAKETIME", format!("{days:+}d")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// By how many days a time differs from the time of this process.
#[track_caller]
fn days_ahead(time: &Value) -> i64 {
    let time = DateTime::parse_from_rfc3339(time.as_str().unwrap()).unwrap();
    let hours = (time.with_timezone(&Utc) - Utc::now()).num_minutes() as f64 / 60.0;
    (hours / 24.0).round() as i64
}

#[test]
fn everything_works_with_a_clock_eight_days_ahead_and_eight_days_behind() {
    let Some(clocks) = Clocks::find() else {
        return;
    };
    for days in [DAYS, -DAYS] {
        let builder = clocks
            .ahead(days)
            .into_iter()
            .fold(Tandem::builder(), |builder, (name, value)| {
                builder.env(name, value)
            });
        let tandem = builder.start();
        let client = Client::new();
        tandem.customer(&client, "ada");
        let order = tandem.order(&client, "ada");
        tandem.audited(&client, "order", &order, 1);
        let told = client.data(
            &tandem.accounts_url("/graphql"),
            CHANGED,
            json!({"id": "ada"}),
        );
        let changed = &told["customer"]["changes"]["nodes"][0]["changedAt"];
        assert_eq!(days_ahead(changed), days, "{changed}");
    }
}

/// Broker, accounts and orders, each with its own clock, on the embedded defaults.
struct Apart {
    directory: TempDir,
    _broker: Process,
    services: Vec<Process>,
    accounts: String,
    orders: String,
    bootstrap: String,
}

impl Apart {
    fn start(clocks: &Clocks, accounts: i64, orders: i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        std::fs::write(directory.path().join("sealing.key"), key).unwrap();
        let [broker, first, second] = [(); 3].map(|()| free_port().unwrap().to_string());
        let process = Process::start(
            tandem_command()
                .args(["broker", "--port", &broker, "--data-dir"])
                .arg(directory.path().join("broker")),
        );
        let mut apart = Self {
            directory,
            _broker: process,
            services: Vec::new(),
            accounts: format!("http://127.0.0.1:{first}"),
            orders: format!("http://127.0.0.1:{second}"),
            bootstrap: format!("127.0.0.1:{broker}"),
        };
        apart.serve(clocks, accounts, orders);
        apart
    }

    /// Starts both services with clocks that are this many days ahead, and waits until they are ready.
    fn serve(&mut self, clocks: &Clocks, accounts: i64, orders: i64) {
        let client = Client::new();
        for (service, url, days) in [
            ("accounts", &self.accounts, accounts),
            ("orders", &self.orders, orders),
        ] {
            let port = url.rsplit_once(':').unwrap().1;
            let mut command: Command = tandem_command();
            command
                .args([service, "--port", port, "--data-dir"])
                .arg(self.directory.path())
                .args(["--kafka-brokers", &self.bootstrap])
                .arg("--sealing-key-file")
                .arg(self.directory.path().join("sealing.key"))
                .envs(clocks.ahead(days));
            self.services.push(Process::start(&mut command));
        }
        for url in [&self.accounts, &self.orders] {
            poll(&format!("{url} is ready"), || {
                let ready = client.try_get(&format!("{url}/actuator/health/readiness"));
                ready.is_some_and(|ready| ready.status == 200).then_some(())
            });
        }
    }

    fn accounts(&self) -> String {
        format!("{}/graphql", self.accounts)
    }

    fn orders(&self) -> String {
        format!("{}/graphql", self.orders)
    }

    fn replicated(&self, client: &Client, id: &str, revision: i64) {
        poll(&format!("{id} is in the replica at {revision}"), || {
            let told = client.data(&self.orders(), REPLICA, json!({"id": id}));
            (told["orderingCustomer"]["replica"]["revision"] == json!(revision)).then_some(())
        });
    }
}

#[test]
fn clocks_of_the_services_eight_days_apart_erase_nobody_and_lose_nothing_in_either_direction() {
    let Some(clocks) = Clocks::find() else {
        return;
    };
    for (accounts, orders) in [(DAYS, -DAYS), (-DAYS, DAYS)] {
        let mut apart = Apart::start(&clocks, accounts, orders);
        let client = Client::new();
        for id in ["ada", "gone"] {
            let input = json!({"input": customer_input(id, "Lovelace")});
            client.data(&apart.accounts(), CREATE, input);
            apart.replicated(&client, id, 1);
        }
        let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
        client.data(
            &apart.accounts(),
            UPDATE,
            json!({"id": "ada", "input": name}),
        );
        apart.replicated(&client, "ada", 2);
        let placed = client.data(&apart.orders(), PLACE, json!({"input": order_input("ada")}));
        let order = placed["placeOrder"]["order"]["id"].clone();
        client.data(&apart.accounts(), ERASE, json!({"id": "gone"}));
        poll("orders knows of the erasure", || {
            let told = client.data(&apart.orders(), REPLICA, json!({"id": "gone"}));
            told["orderingCustomer"].is_null().then_some(())
        });
        // A new orders reads everything. To its clock all of it is days old or days in the future.
        apart.services.clear();
        std::fs::remove_file(apart.directory.path().join("orders.redb")).unwrap();
        apart.serve(&clocks, accounts, orders);
        apart.replicated(&client, "ada", 2);
        let told = client.data(&apart.orders(), REPLICA, json!({"id": "ada"}));
        assert_eq!(told["orderingCustomer"]["name"]["lastName"], json!("King"));
        let told = client.data(&apart.orders(), REPLICA, json!({"id": "gone"}));
        assert_eq!(told["orderingCustomer"], Value::Null);
        let told = client.data(&apart.orders(), SHIPPED, json!({"id": order}));
        assert_eq!(told["order"]["shipTo"]["address1"], json!("1 Ockham Park"));
        assert_eq!(days_ahead(&told["order"]["placedAt"]), orders);
        let changed = poll("the change is in the audit trail", || {
            let told = client.data(&apart.accounts(), CHANGED, json!({"id": "ada"}));
            let changed = &told["customer"]["changes"]["nodes"][0]["changedAt"];
            changed.is_string().then(|| changed.clone())
        });
        assert_eq!(days_ahead(&changed), accounts);
    }
}
