//! Real MongoDB and Kafka servers for tests, with the failures that a test needs.
//!
//! [`Mongo`] and [`Kafka`], or both as [`Servers`], start on free loopback ports with their own data directories. Any
//! node can be killed, paused, and restarted with the same port and data. The servers end when the value that started
//! them is dropped, or when the test process ends, in whatever way.
//!
//! The servers are not part of the build: `tests/backends/install.sh` downloads them. A test that needs them begins
//! with [`require!`]. It then prints a line when it was left out, and fails where it must not be left out.
//!
//! ```no_run
//! # async fn example() -> Result<(), tandem_backends::Error> {
//! tandem_backends::require!(mongod, kafka; Ok(()));
//! let mongo = tandem_backends::Mongo::start(3).await?;
//! let dead = mongo.kill_primary().await?;
//! mongo.wait_for_primary(std::time::Duration::from_secs(30)).await?;
//! mongo.start_again(dead).await?;
//! # Ok(()) }
//! ```
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]

mod certificate;
mod discovery;
mod error;
mod kafka;
mod mongo;
mod nodes;
mod patience;
mod port;
mod server;
mod servers;
mod solo;

pub use discovery::{Backend, available, kafka_libs, mongod};
pub use error::Error;
pub use kafka::{Credentials, Kafka, KafkaOptions};
pub use mongo::Mongo;
pub use patience::eventually;
pub use port::free_port;
pub use servers::Servers;
pub use solo::{Solo, solo};

/// Ends the test when a backend isn't installed: `require!(mongod)`, `require!(kafka)`, `require!(mongod, kafka)`.
///
/// A `LEFT OUT` line names the test and says what to run. With `TANDEM_REQUIRE_BACKENDS=1` the test fails instead. A
/// test that returns a value gives it last: `require!(mongod; Ok(()))`.
#[macro_export]
macro_rules! require {
    ($($backend:ident),+ $(; $answer:expr)?) => {
        if !($($crate::available($crate::require!(@ $backend)))&&+) {
            return $($answer)?;
        }
    };
    (@ mongod) => { $crate::Backend::Mongod };
    (@ kafka) => { $crate::Backend::Kafka };
}
