//! The contract suite of the stores on both kinds of store, with the service's own aggregate.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::json;
use tandem_accounts::domain::Customer;
use tandem_backends::{Backend, Mongo};
use tandem_model::aggregate::Aggregate;
use tandem_store_contract::{
    Example,
    places::{Database, File},
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// One server for all cases; it ends with this process.
static SERVER: OnceCell<Mongo> = OnceCell::const_new();

async fn file() -> Option<File<tempfile::TempDir>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("contract.redb");
    Some(File { path, directory })
}

async fn database() -> Option<Database> {
    if !tandem_backends::available(Backend::Mongod) {
        return None;
    }
    let server = SERVER
        .get_or_init(async || Mongo::start(1).await.unwrap())
        .await;
    Some(Database {
        uri: server.uri(),
        name: format!("contract-{}", Uuid::new_v4()),
    })
}

// A customer with generated data, for the suite.
tandem_store_contract::own_aggregate!(Own, Customer);

impl Example for Own {
    fn example(id: &str, group: u32) -> Self {
        Self::made_up(id, group, 1)
    }

    fn changed(&self, group: u32) -> Self {
        Self::made_up(self.id(), group, self.revision() + 1)
    }
}

impl Own {
    fn made_up(id: &str, group: u32, revision: i64) -> Self {
        let customer = json!({
            "id": id,
            "name": {"title": null, "firstName": "Jo — ü", "middleName": null, "lastName": format!("Group{group}"), "suffix": null},
            "contact": {"primaryPhone": "1", "secondaryPhone": null, "email": format!("at{revision}@example.com")},
            "addresses": [],
            "creditCards": [],
            "revision": revision,
            "createdAt": "2026-11-23T10:00:00.123Z",
            "updatedAt": "2026-11-23T10:00:00.456Z",
        });
        Self(serde_json::from_value(customer).unwrap())
    }
}

mod embedded {
    use super::*;
    tandem_store_contract::store_contract!(Own, file());
}

mod mongo {
    use super::*;
    tandem_store_contract::store_contract!(Own, database());
}
