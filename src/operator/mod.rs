//! What an operator asks of a running system: rebuild a store, look after dead letters, read the audit of a customer.

mod audit;
mod dead_letters;
mod rebuild;
mod service;

pub(crate) use audit::AuditSettings;
pub(crate) use dead_letters::DeadLettersSettings;
pub(crate) use rebuild::RebuildSettings;

pub(crate) use audit::run as audit;
pub(crate) use dead_letters::run as dead_letters;
pub(crate) use rebuild::run as rebuild;
