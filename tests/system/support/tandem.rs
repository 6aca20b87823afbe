//! The whole system, started the way a user starts it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tandem_backends::{Servers, free_port};
use tempfile::TempDir;

use super::{Process, Signal};

/// The binary under test.
pub const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");

/// Limits a command to its flags: a developer's own settings must not affect a test.
pub fn command() -> Command {
    command_of(Path::new(TANDEM))
}

/// Like [`command`], with another binary.
pub fn command_of(program: &Path) -> Command {
    on_its_own(Command::new(program))
}

fn on_its_own(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("TANDEM_") || name.starts_with("OTEL_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// How to start `tandem up`.
pub struct TandemBuilder {
    directory: Directory,
    accounts: u16,
    orders: u16,
    gateway: u16,
    broker: u16,
    brokers: Option<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    survives_full_disks: bool,
}

enum Directory {
    Own(TempDir),
    Given(PathBuf),
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

impl TandemBuilder {
    /// Uses a directory that outlives this system, so that a test can start again with the same data.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Directory::Given(path.into());
        self
    }

    /// Adds a flag, or a flag's value.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Uses these Kafka brokers instead of the embedded one.
    pub fn kafka(mut self, bootstrap: String) -> Self {
        self.brokers = Some(bootstrap.clone());
        self.flag("--kafka-brokers").flag(bootstrap)
    }

    /// Uses these servers instead of the embedded store and broker.
    pub fn servers(self, servers: &Servers) -> Self {
        self.flag("--mongodb-uri")
            .flag(servers.mongo.uri())
            .kafka(servers.kafka.bootstrap())
    }

    /// Adds a variable to the environment of all its processes.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Accepts events without a signature, because tests write such events directly to the topics.
    pub fn accepts_unsigned(self) -> Self {
        self.env("TANDEM_ACCEPT_UNSIGNED", "true")
    }

    /// Makes a write beyond the limit of [`limit_files`](super::limit_files) fail like on a full disk. The signal of
    /// that limit would end the process, so it is ignored.
    pub fn surviving_full_disks(mut self) -> Self {
        self.survives_full_disks = true;
        self
    }

    /// Starts it without waiting.
    pub fn spawn(self) -> Tandem {
        let mut command = if self.survives_full_disks {
            let mut shell = on_its_own(Command::new("sh"));
            shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", TANDEM]);
            shell
        } else {
            command()
        };
        command
            .arg("up")
            .arg("--data-dir")
            .arg(self.directory.path())
            .args(["--accounts-port", &self.accounts.to_string()])
            .args(["--orders-port", &self.orders.to_string()])
            .args(["--gateway-port", &self.gateway.to_string()])
            .args(["--broker-port", &self.broker.to_string()])
            .args(&self.flags)
            .envs(self.environment);
        Tandem {
            process: Process::start(&mut command),
            command,
            directory: self.directory,
            accounts: self.accounts,
            orders: self.orders,
            gateway: self.gateway,
            broker: self.broker,
            brokers: self.brokers,
        }
    }

    /// Starts it and waits for the line `ready`.
    #[track_caller]
    pub fn start(self) -> Tandem {
        let mut tandem = self.spawn();
        tandem.wait_until_ready();
        tandem
    }
}

/// A running `tandem up`. Dropping it stops it with all its children.
pub struct Tandem {
    pub process: Process,
    command: Command,
    directory: Directory,
    pub accounts: u16,
    pub orders: u16,
    pub gateway: u16,
    pub broker: u16,
    brokers: Option<String>,
}

impl Tandem {
    /// The default: free ports, and its own data directory.
    pub fn builder() -> TandemBuilder {
        TandemBuilder {
            directory: Directory::Own(tempfile::tempdir().unwrap()),
            accounts: free_port().unwrap(),
            orders: free_port().unwrap(),
            gateway: free_port().unwrap(),
            broker: free_port().unwrap(),
            brokers: None,
            flags: Vec::new(),
            environment: Vec::new(),
            survives_full_disks: false,
        }
    }

    /// Starts a system and waits until it is ready.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        self.process
            .wait_for_line("a line that begins with `ready`", |line| {
                line.starts_with("ready")
            });
    }

    /// Restarts an `up` that has ended, with the same data and ports.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = Process::start(&mut self.command);
        self.wait_until_ready();
    }

    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// The address of a path on the accounts service.
    pub fn accounts_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.accounts)
    }

    /// The address of a path on the orders service.
    pub fn orders_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.orders)
    }

    /// The address of a path on the gateway.
    pub fn gateway_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.gateway)
    }

    /// Waits until one of the services has logged this.
    #[track_caller]
    pub fn process_says_in_log(&self, words: &str) {
        let logs = self.data_dir().join("logs");
        super::poll(&format!("a log says {words:?}"), || {
            let files = std::fs::read_dir(&logs).ok()?;
            let says = files.flatten().any(|file| {
                std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains(words))
            });
            says.then_some(())
        });
    }

    /// The token that `up --auth` prints. It has an administrator's rights.
    #[track_caller]
    pub fn printed_token(&self) -> String {
        super::poll("`up --auth` prints a token", || {
            let output = self.process.output();
            let token = output
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with("eyJ"))?;
            Some(token.to_owned())
        })
    }

    /// For Kafka clients.
    pub fn bootstrap_servers(&self) -> String {
        match &self.brokers {
            Some(brokers) => brokers.clone(),
            None => format!("127.0.0.1:{}", self.broker),
        }
    }

    /// The process that `up` last reported as started for this service.
    pub fn child(&self, service: &str) -> Option<u32> {
        child_in(&self.process.output(), service)
    }

    /// Every process that `up` reported as started.
    pub fn children(&self) -> Vec<u32> {
        ["broker", "accounts", "orders", "router"]
            .iter()
            .filter_map(|service| self.child(service))
            .collect()
    }
}

/// `up` prints `started SERVICE (pid N)` for each process.
fn child_in(output: &str, service: &str) -> Option<u32> {
    output.lines().rev().find_map(|line| {
        line.split_once(&format!("started {service} (pid "))?
            .1
            .split_once(')')?
            .0
            .parse()
            .ok()
    })
}

impl Drop for Tandem {
    fn drop(&mut self) {
        // Stops it in an orderly way, so that no child survives. If it does not end in time, it is killed.
        if self.process.ended().is_none() {
            self.process.signal(Signal::TERM);
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            while self.process.ended().is_none() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
