//! Finds the servers, and decides what a test does when they are not installed.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The versions that `install.sh` installs. Both read the same file.
const VERSIONS: &str = include_str!("../versions");

/// A server that a test can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A real MongoDB server.
    Mongod,
    /// A real Apache Kafka, and the Java that runs it.
    Kafka,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Mongod => "mongod",
            Self::Kafka => "Kafka",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Mongod => mongod().is_some(),
            Self::Kafka => kafka_libs().is_some() && java("java").is_some(),
        }
    }
}

/// The `mongod` to use: `TANDEM_TEST_MONGOD`, otherwise the one in the cache.
#[must_use]
pub fn mongod() -> Option<PathBuf> {
    let path = match env::var_os("TANDEM_TEST_MONGOD").filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => cached("mongod", "MONGOD_WHEEL")?.join("mongod"),
    };
    path.is_file().then_some(path)
}

/// The directory of Kafka's jars: `TANDEM_TEST_KAFKA_LIBS`, otherwise the one in the cache.
#[must_use]
pub fn kafka_libs() -> Option<PathBuf> {
    let path = match env::var_os("TANDEM_TEST_KAFKA_LIBS").filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => cached("kafka", "KAFKA")?.join("libs"),
    };
    path.is_dir().then_some(path)
}

/// A program of the Java installation: from `JAVA_HOME`, otherwise from `PATH`.
pub(crate) fn java(program: &str) -> Option<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    home.into_iter()
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether the test can run. If not, the reason is printed to standard error, or the test fails.
///
/// The line is written directly to standard error, because the test harness hides the output of print macros for a test
/// that passes.
///
/// # Panics
/// When the backend isn't installed and `TANDEM_REQUIRE_BACKENDS=1` says that it has to be.
#[must_use]
pub fn available(backend: Backend) -> bool {
    if backend.is_installed() {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let name = backend.name();
    assert!(
        env::var_os("TANDEM_REQUIRE_BACKENDS").as_deref() != Some(OsStr::new("1")),
        "{test} needs a real {name}, and TANDEM_REQUIRE_BACKENDS=1 forbids leaving it out; run tests/backends/install.sh"
    );
    let line = format!("\nLEFT OUT: {test} needs a real {name}; run tests/backends/install.sh\n");
    // One write, so that the lines of parallel tests stay whole. If standard error is closed, nobody reads the line.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    false
}

fn cached(server: &str, version_key: &str) -> Option<PathBuf> {
    let version = VERSIONS
        .lines()
        .find_map(|line| line.strip_prefix(version_key)?.strip_prefix('='))?;
    Some(cache()?.join(format!("{server}-{version}")))
}

fn cache() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = set("TANDEM_BACKENDS_CACHE") {
        return Some(PathBuf::from(cache));
    }
    let base = match set("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => Path::new(&set("HOME")?).join(".cache"),
    };
    Some(base.join("tandem-backends"))
}
