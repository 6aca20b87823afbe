//! Exports the spans of a process to a collector over OTLP. OpenTelemetry's standard variables configure it, and
//! without an endpoint it is off.
//!
//! It is a separate crate that the program depends on and the services do not. The services record spans
//! (`tandem_runtime::span`) and do not know where these go. The collector may be slow or unavailable: spans wait in a
//! bounded queue and are dropped beyond the bound. Callers never wait.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

mod exporter;
mod losses;
mod queue;
mod resource;
mod settings;

pub use exporter::{ExportError, Exporter};
pub use resource::own_attributes;
pub use settings::{Batches, ClientCertificate, Protocol, Sampling, SettingsError, TraceSettings};
