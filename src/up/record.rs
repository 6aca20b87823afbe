//! Keeps the file that tells the operator's commands what this `up` runs up to date while processes start and end.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use secrecy::ExposeSecret;

use super::service::{Plan, Service};
use crate::running::{Running, hosts_of, process_start, without_secrets};

/// What runs, and the directory of the file that records it.
#[derive(Debug)]
pub(super) struct Record {
    directory: PathBuf,
    running: Mutex<Running>,
}

impl Record {
    /// The record of a plan before its first process starts. Writes nothing yet.
    pub(super) fn of(plan: &Plan) -> Self {
        let pid = std::process::id();
        let (kafka_properties, secret_kafka_properties) =
            without_secrets(&plan.settings.kafka_properties);
        let running = Running {
            pid,
            process_start: process_start(pid),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: plan.address(Service::Router),
            accounts: plan.address(Service::Accounts),
            orders: plan.address(Service::Orders),
            kafka_brokers: plan.brokers(),
            kafka_properties,
            secret_kafka_properties,
            topic_prefix: plan.settings.topic_prefix.clone(),
            store: match &plan.settings.mongodb_uri {
                Some(uri) => hosts_of(uri.expose_secret()),
                None => "embedded".to_owned(),
            },
            sealing_key_file: plan.key_file.clone(),
            processes: BTreeMap::new(),
        };
        Self {
            directory: plan.directory.clone(),
            running: Mutex::new(running),
        }
    }

    /// Records the process of a service: its id, or that it has ended.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn note(&self, service: Service, id: Option<u32>) -> std::io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match id {
            Some(id) => running.processes.insert(service.name().to_owned(), id),
            None => running.processes.remove(service.name()),
        };
        running.write(&self.directory)
    }

    /// Removes the file, because nothing runs any more.
    pub(super) fn close(&self) {
        let _held = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        Running::remove(&self.directory);
    }
}
