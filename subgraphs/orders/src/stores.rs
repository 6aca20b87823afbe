//! The stores of orders: orders, their audit trail, dead letters, and the replica of customers.

use std::{path::Path, sync::Arc};

use tandem_assembly::{
    store_settings::StoreSettings,
    stores::{self, Database, StoreNames, StoresError},
};
use tandem_event_path::sealing::Sealer;
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::actuator::HealthReporter;

use crate::{
    audit,
    domain::Order,
    replica::{ReplicaStore, embedded::EmbeddedReplica, mongo::MongoReplica},
};

/// The names of the stores of orders.
const NAMES: StoreNames = StoreNames {
    database: "orders",
    changes: audit::COLLECTION,
};

/// The stores of orders. Clones share them.
#[derive(Clone)]
pub struct Stores {
    /// Orders, and the data that every service stores besides its aggregates.
    pub own: stores::Stores<Order>,
    /// The replica of customers.
    pub replica: Arc<dyn ReplicaStore>,
}

impl Stores {
    /// Opens the stores that the settings name. See [`stores::Stores::open`].
    ///
    /// # Errors
    /// The errors of [`stores::Stores::open`].
    pub async fn open(
        settings: &StoreSettings,
        sealer: &Sealer,
        waiting: &HealthReporter,
        shutdown: &Shutdown,
    ) -> Result<Self, StoresError> {
        Self::of(stores::Stores::open(NAMES, settings, sealer, waiting, shutdown).await?).await
    }

    /// Opens the embedded store in a directory, and creates it if it is missing.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn embedded(directory: &Path, sealer: &Sealer) -> Result<Self, StoresError> {
        Self::of(stores::Stores::embedded(NAMES, directory, sealer).await?).await
    }

    async fn of((own, database): (stores::Stores<Order>, Database)) -> Result<Self, StoresError> {
        let replica: Arc<dyn ReplicaStore> = match database {
            Database::Embedded(store) => Arc::new(EmbeddedReplica::open(store).await?),
            Database::Mongo(store) => Arc::new(MongoReplica::new(store)),
        };
        Ok(Self { own, replica })
    }
}
