//! The sealing keys that a store requires, on both kinds of store: every key that may have sealed something in it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use tandem_accounts::stores::{NAMES, Stores};
use tandem_assembly::{
    sealing_keys::settle_sealing_key, store_settings::StoreSettings, stores::StoresError,
};
use tandem_backends::{Backend, Mongo};
use tandem_event_path::{sealing::Sealer, store::Registry};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::actuator::{Affects, Health};
use tempfile::TempDir;

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];
const OTHER: [u8; 32] = [9; 32];

/// A place for stores: in a file, or on a server if there is one.
struct Place {
    directory: TempDir,
    server: Option<Mongo>,
}

impl Place {
    fn file() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            server: None,
        }
    }

    async fn server() -> Self {
        Self {
            server: Some(Mongo::start(1).await.unwrap()),
            ..Self::file()
        }
    }

    async fn open(
        &self,
        newest: [u8; 32],
        older: &[[u8; 32]],
    ) -> Result<Arc<dyn Registry>, StoresError> {
        let settings = StoreSettings {
            data_dir: self.directory.path().to_owned(),
            mongodb_uri: self.server.as_ref().map(|server| server.uri().into()),
            accept_truncated_log: false,
        };
        let shutdown = Shutdown::new();
        let waiting = Health::new(&shutdown).reporter("store", Affects::Readiness);
        let sealer = Sealer::replacing(&newest, older);
        let opened = Stores::open(NAMES, &settings, &sealer, &waiting, &shutdown).await;
        opened.map(|(stores, _)| stores.registry)
    }

    /// The error of a start with these keys, one of which is missing.
    async fn refused(&self, newest: [u8; 32], older: &[[u8; 32]]) -> String {
        let opened = self.open(newest, older).await;
        opened.map(drop).unwrap_err().to_string()
    }
}

fn fingerprint(key: [u8; 32]) -> String {
    Sealer::new(&key).fingerprint()
}

async fn a_key_is_asked_for_until_it_is_replaced(place: &Place) {
    drop(place.open(OLD, &[]).await.unwrap());
    // From here on, the new key seals.
    drop(place.open(NEW, &[OLD]).await.unwrap());
    for (given, missing) in [(OLD, NEW), (NEW, OLD)] {
        let said = place.refused(given, &[]).await;
        assert!(said.contains(&fingerprint(missing)), "{said}");
        assert!(said.contains("keys rotate"), "{said}");
    }
    // A start that was refused has sealed nothing, so its key is not required.
    place.refused(OTHER, &[]).await;
    drop(place.open(OLD, &[NEW]).await.unwrap());

    // A third key becomes the newest while the second replaces the first. It stays required.
    let registry = place.open(OTHER, &[NEW, OLD]).await.unwrap();
    let replacing = Sealer::replacing(&NEW, &[OLD]);
    settle_sealing_key(registry.as_ref(), &replacing)
        .await
        .unwrap();
    drop(registry);
    let said = place.refused(NEW, &[]).await;
    assert!(said.contains(&fingerprint(OTHER)), "{said}");
    let registry = place.open(OTHER, &[NEW]).await.unwrap();
    let replacing = Sealer::replacing(&OTHER, &[NEW]);
    settle_sealing_key(registry.as_ref(), &replacing)
        .await
        .unwrap();
    drop(registry);
    drop(place.open(OTHER, &[]).await.unwrap());
    let said = place.refused(OLD, &[]).await;
    assert!(said.contains(&fingerprint(OTHER)), "{said}");
}

#[tokio::test]
async fn a_file_asks_for_every_key_that_has_sealed_until_it_is_replaced() {
    a_key_is_asked_for_until_it_is_replaced(&Place::file()).await;
}

#[tokio::test]
async fn a_database_asks_for_every_key_that_has_sealed_until_it_is_replaced() {
    if !tandem_backends::available(Backend::Mongod) {
        return;
    }
    a_key_is_asked_for_until_it_is_replaced(&Place::server().await).await;
}

#[tokio::test]
async fn a_store_that_remembers_one_fingerprint_alone_is_taken_over() {
    let place = Place::file();
    let registry = place.open(OLD, &[]).await.unwrap();
    let since = registry.recall_all("sealing-keys/").await.unwrap();
    assert!(since.is_empty(), "{since:?}");
    assert_eq!(
        registry.recall("sealing-key").await.unwrap(),
        Some(fingerprint(OLD))
    );
    drop(registry);
    let registry = place.open(NEW, &[OLD]).await.unwrap();
    let name = format!("sealing-keys/{}", fingerprint(NEW));
    assert_eq!(
        registry.recall_all("sealing-keys/").await.unwrap(),
        [(name, fingerprint(NEW))]
    );
}
