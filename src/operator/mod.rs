//! An operator's commands on a running system: rebuild a store, retry dead letters, publish or replace keys, compare
//! and restore logs, read the audit of a customer, watch the events.
//!
//! `reach` finds the system, `service` calls the `/admin` routes of its services. `audit` and `events` read Kafka
//! themselves and need no service.

mod audit;
mod bounded_lines;
mod dead_letters;
mod events;
mod keys;
mod log;
mod reach;
mod rebuild;
mod sealed;
mod service;

pub(crate) use audit::AuditSettings;
pub(crate) use dead_letters::DeadLettersSettings;
pub(crate) use events::EventsSettings;
pub(crate) use keys::KeysSettings;
pub(crate) use log::LogsSettings;
pub(crate) use reach::{KAFKA_PORT, KafkaPlace, Place, Services, reachable};
pub(crate) use rebuild::{RebuildSettings, RestoreSettings};
pub(crate) use service::{Service, innermost, what_answers};

pub(crate) use audit::run as audit;
pub(crate) use dead_letters::run as dead_letters;
pub(crate) use events::run as events;
pub(crate) use keys::run as keys;
pub(crate) use log::run as log;
pub(crate) use rebuild::{restore, run as rebuild};
