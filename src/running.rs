//! The file in which a `tandem up` records what it runs. It is in the data directory, where the operator's commands
//! find it.
//!
//! The file holds no secrets, but it names files that do, so only its owner may read it. `up` removes it when it ends.
//! After a `kill -9` the file stays; the process id in it shows that it is stale.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Error, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

const FILE: &str = "up.json";

/// A librdkafka property holds a secret if its name contains one of these.
const SECRET: [&str; 6] = [
    "password",
    "secret",
    "jaas",
    "key.pem",
    "oauthbearer.config",
    "keytab",
];

/// What one `up` runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    /// The process id of `up`.
    pub(crate) pid: u32,
    /// The start time of that process, as the operating system writes it. It tells this process from a later one that
    /// has the same id.
    pub(crate) process_start: Option<String>,
    /// The version of the program.
    pub(crate) version: String,
    /// Base URL of the gateway.
    pub(crate) gateway: String,
    /// Base URL of accounts.
    pub(crate) accounts: String,
    /// Base URL of orders.
    pub(crate) orders: String,
    /// HOST:PORT, separated by commas.
    pub(crate) kafka_brokers: String,
    /// KEY=VALUE, without the properties that are secret.
    pub(crate) kafka_properties: Vec<String>,
    /// The keys of the secret properties.
    pub(crate) secret_kafka_properties: Vec<String>,
    /// The prefix of its topic names.
    #[serde(default)]
    pub(crate) topic_prefix: String,
    /// `embedded`, or the hosts of MongoDB without user and password.
    pub(crate) store: String,
    /// The file with the sealing key. `None` when the key itself was given.
    pub(crate) sealing_key_file: Option<PathBuf>,
    /// Process ids by service.
    pub(crate) processes: BTreeMap<String, u32>,
}

/// What a data directory says about a running `up`.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// No `up` runs here, or its record cannot be read.
    Nothing,
    /// The record's process is gone.
    Stale {
        /// The process id in the record.
        pid: u32,
    },
    /// The `up` runs.
    Alive(Box<Running>),
}

impl Found {
    /// Reads the record in a data directory.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let read = std::fs::read(directory.join(FILE)).ok();
        let Some(running) = read.and_then(|text| serde_json::from_slice::<Running>(&text).ok())
        else {
            return Self::Nothing;
        };
        if running.is_alive() {
            Self::Alive(Box::new(running))
        } else {
            Self::Stale { pid: running.pid }
        }
    }

    /// The running system, if there is one.
    pub(crate) fn alive(&self) -> Option<&Running> {
        match self {
            Self::Alive(running) => Some(running),
            Self::Nothing | Self::Stale { .. } => None,
        }
    }

    /// The end of a sentence about something that was not found. It says which `up` runs on the directory.
    pub(crate) fn told(&self, directory: &Path) -> String {
        let directory = directory.display();
        match self {
            Self::Nothing => format!("no `tandem up` runs on {directory}"),
            Self::Stale { pid } => {
                format!("the `tandem up` that ran on {directory} (pid {pid}) has ended")
            }
            Self::Alive(running) => {
                format!(
                    "the `tandem up` that runs on {directory} has pid {}",
                    running.pid
                )
            }
        }
    }
}

impl Running {
    /// Writes the record atomically: a reader finds either the old file or the new one, complete.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), Error> {
        let unfinished = directory.join("up.json.new");
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        writeln!(file)?;
        file.sync_all()?;
        std::fs::rename(unfinished, directory.join(FILE))
    }

    /// Removes the record.
    pub(crate) fn remove(directory: &Path) {
        // If the file stays, readers see that it is stale.
        let _ = std::fs::remove_file(directory.join(FILE));
    }

    fn is_alive(&self) -> bool {
        let id = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let exists = id.is_some_and(|id| {
            // EPERM means that the process exists and belongs to another user.
            test_kill_process(id) != Err(rustix::io::Errno::SRCH)
        });
        exists && process_start(self.pid) == self.process_start
    }
}

/// Splits KEY=VALUE properties into those that may be written to a file, and the keys of the secret ones.
pub(crate) fn without_secrets(properties: &[String]) -> (Vec<String>, Vec<String>) {
    let mut open = Vec::new();
    let mut secret = Vec::new();
    for property in properties {
        let key = property.split('=').next().unwrap_or_default().trim();
        if SECRET.iter().any(|mark| key.contains(mark)) {
            secret.push(key.to_owned());
        } else {
            open.push(property.clone());
        }
    }
    (open, secret)
}

/// The hosts of a connection string, without user, password or options.
pub(crate) fn hosts_of(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("mongodb", uri));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    format!("{scheme}://{hosts}")
}

/// The start time of a process together with the id of its boot, if the system reports them.
pub(crate) fn process_start(pid: u32) -> Option<String> {
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // proc(5): field 22, in clock ticks since boot. The second field may hold blanks; it ends at the last
        // parenthesis.
        let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        return Some(format!("{ticks} {}", boot.trim()).trim_end().to_owned());
    }
    if Path::new("/proc/self").exists() {
        return None;
    }
    let answer = std::process::Command::new("ps")
        .args(["-o", "lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn running(pid: u32) -> Running {
        Running {
            pid,
            process_start: process_start(pid),
            version: "1".into(),
            gateway: "http://127.0.0.1:1".into(),
            accounts: "http://127.0.0.1:2".into(),
            orders: "http://127.0.0.1:3".into(),
            kafka_brokers: "127.0.0.1:4".into(),
            kafka_properties: Vec::new(),
            secret_kafka_properties: Vec::new(),
            topic_prefix: String::new(),
            store: "embedded".into(),
            sealing_key_file: None,
            processes: BTreeMap::new(),
        }
    }

    #[test]
    fn what_runs_is_found_by_its_owner_alone_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert!(Found::in_directory(directory).alive().is_none());

        let own = running(std::process::id());
        own.write(directory).unwrap();
        own.write(directory).unwrap();
        let found = Found::in_directory(directory);
        assert_eq!(found.alive().unwrap().kafka_brokers, "127.0.0.1:4");
        let mode = std::fs::metadata(directory.join(FILE))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);

        Running::remove(directory);
        assert!(matches!(Found::in_directory(directory), Found::Nothing));
    }

    #[test]
    fn what_a_dead_process_wrote_is_stale_also_when_its_id_is_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut dead = running(child.id());
        child.wait().unwrap();
        dead.write(directory).unwrap();
        assert!(matches!(
            Found::in_directory(directory),
            Found::Stale { .. }
        ));

        dead.pid = std::process::id();
        dead.process_start = Some("another time".into());
        dead.write(directory).unwrap();
        let found = Found::in_directory(directory);
        assert!(found.told(directory).contains("has ended"));

        std::fs::write(directory.join(FILE), "{").unwrap();
        assert!(matches!(Found::in_directory(directory), Found::Nothing));
    }

    #[test]
    fn secrets_are_not_written_down() {
        let given = [
            "security.protocol=SASL_SSL",
            "sasl.password=p=q",
            "ssl.key.password=x",
        ];
        let (open, secret) = without_secrets(&given.map(str::to_owned));
        assert_eq!(open, ["security.protocol=SASL_SSL"]);
        assert_eq!(secret, ["sasl.password", "ssl.key.password"]);
        for uri in [
            "mongodb://user:p%40ss@a:1,b:2/?replicaSet=rs",
            "mongodb://a:1,b:2",
        ] {
            assert_eq!(hosts_of(uri), "mongodb://a:1,b:2");
        }
    }
}
