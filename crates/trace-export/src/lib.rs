//! Sends the spans of a process to a collector, by OTLP. Set by the standard variables of OpenTelemetry alone, off without an endpoint.
//!
//! It is a crate of its own, which the program has and the services do not: they record spans (`tandem_runtime::span`) and know nothing of
//! where these go. The collector may be slow or away: spans wait in a queue with a bound and are dropped behind it, callers never wait.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

mod exporter;
mod losses;
mod queue;
mod resource;
mod settings;

pub use exporter::{ExportError, Exporter};
pub use resource::own_attributes;
pub use settings::{Batches, ClientCertificate, Protocol, Sampling, SettingsError, TraceSettings};
