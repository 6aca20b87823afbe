//! Real MongoDB and Kafka servers for tests, with the failures that a test wants to see.
//!
//! [`Mongo`] and [`Kafka`], or both as [`Servers`], start on free loopback ports with data directories of their own; any node can
//! be killed, paused, and started again on the same port and data. They end with the value that started them, or with the test
//! process, however it dies.
//!
//! The servers are not part of the build: `tests/backends/install.sh` fetches them. A test that needs them begins with
//! [`require!`], so that it says aloud when it had to be left out, and fails where leaving out is not allowed.
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
/// One loud `LEFT OUT` line says which test and what to run. With `TANDEM_REQUIRE_BACKENDS=1` the test fails instead.
/// A test that returns something gives it last: `require!(mongod; Ok(()))`.
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
