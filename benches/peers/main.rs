//! Tandem beside alternatives, in one run on the same processors: two gateways for Node on the same subgraphs, and
//! Debezium's connector on the same MongoDB and Kafka.
//!
//!     benches/peers/install.sh && tests/backends/install.sh
//!     cargo bench --bench peers                  all
//!     cargo bench --bench peers -- gateways      only these parts: gateways, debezium
//!
//! Each is set up as its documentation recommends for production. They are measured in turns, and the median of the
//! rounds is shown.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::{collections::HashMap, path::PathBuf};

use tokio::runtime::Runtime;

mod debezium;
mod gateways;
#[path = "../report/mod.rs"]
mod report;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;

use report::{Words, say};

fn main() {
    let words = Words::among(&["gateways", "debezium"]);
    report::begin("peers", "Beside its peers", words.is_empty());
    let runtime = Runtime::new().unwrap();
    let peers = Peers::find();
    if words.wants("gateways") {
        gateways::measure(&runtime, &peers);
    }
    if words.wants("debezium") {
        debezium::measure(&runtime, &peers);
    }
    say!("\nnone of the peers is part of Tandem or of what it ships");
    report::end();
}

/// Where the peers are installed, and their versions.
pub struct Peers {
    cache: PathBuf,
    versions: HashMap<&'static str, &'static str>,
}

impl Peers {
    fn find() -> Self {
        let told = std::env::var_os("TANDEM_PEERS_CACHE").map(PathBuf::from);
        let usual = || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
            cache.unwrap_or_else(home).join("tandem-peers")
        };
        let versions = include_str!("versions")
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        Self {
            cache: told.unwrap_or_else(usual),
            versions,
        }
    }

    pub fn version(&self, name: &str) -> &'static str {
        self.versions[name]
    }

    /// The directory into which `install.sh` has installed this.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.cache.join(name);
        assert!(
            path.is_dir(),
            "{} is not there: run benches/peers/install.sh",
            path.display()
        );
        path
    }
}
