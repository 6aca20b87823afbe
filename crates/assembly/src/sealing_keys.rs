//! Tracks which sealing keys a store needs. It keeps the fingerprint of every key that may have sealed data in it,
//! until a replacement is complete. A service that lacks one of these keys does not start.

use tandem_event_path::{
    sealing::Sealer,
    store::{Registry, StoreError},
};
use tandem_store_redb::Codec;

/// The registry name for the fingerprint of the sealing key that the store was created with, or that was the newest
/// when a replacement was completed.
const SEALING_KEY: &str = "sealing-key";
/// The prefix of registry names for the fingerprints of keys that were the newest since then.
const SINCE: &str = "sealing-keys/";

/// The registry name for the key of an embedded store's records, sealed with the sealing key.
pub(crate) const STORE_KEY: &str = "store-key";
/// The context that the store's key is sealed for.
const STORE_KEY_PLACE: &[u8] = b"store-key";

/// The store may hold data that was sealed with a key that the service does not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "this store was used with the sealing key of the fingerprint {missing}, and {given} was given: give the service that key as well, by TANDEM_SEALING_KEY or --sealing-key-file, on a line below the one that is to seal. It may go when `tandem keys rotate` says so"
)]
pub struct MissingKey {
    /// The fingerprint of the key that is missing.
    pub missing: String,
    /// The fingerprints of the keys that were given.
    pub given: String,
}

/// Checks that the service's keys open what its store holds. If they do, the store records the key that seals from now
/// on. This must happen before anything is sealed.
///
/// # Errors
/// If the store does not answer.
pub(crate) async fn admit(
    registry: &dyn Registry,
    sealer: &Sealer,
) -> Result<Result<(), MissingKey>, StoreError> {
    let newest = sealer.fingerprint();
    let mut needed = vec![registry.remember(SEALING_KEY, &newest).await?];
    let since = registry.recall_all(SINCE).await?;
    needed.extend(since.into_iter().map(|(_, fingerprint)| fingerprint));
    if let Some(missing) = needed.iter().find(|needed| !sealer.has(needed)) {
        return Ok(Err(MissingKey {
            missing: missing.clone(),
            given: sealer.fingerprints().join(", "),
        }));
    }
    if !needed.contains(&newest) {
        registry.note(&since_name(&newest), &newest).await?;
    }
    Ok(Ok(()))
}

fn since_name(fingerprint: &str) -> String {
    format!("{SINCE}{fingerprint}")
}

/// Records that a store needs only the newest sealing key. The key of an embedded store's records is sealed anew.
/// Fingerprints of keys that this sealer does not have are kept, because another instance seals with them.
///
/// # Errors
/// If the store does not answer, or its key does not open.
pub async fn settle_sealing_key(
    registry: &dyn Registry,
    sealer: &Sealer,
) -> Result<(), StoreError> {
    if let Some(sealed) = registry.recall(STORE_KEY).await? {
        let resealed = sealer
            .reseal(&sealed, STORE_KEY_PLACE)
            .map_err(|error| StoreError::Corrupt(format!("the key of the store: {error}")))?;
        if let Some(resealed) = resealed {
            registry.note(STORE_KEY, &resealed).await?;
        }
    }
    registry.note(SEALING_KEY, &sealer.fingerprint()).await?;
    for (name, fingerprint) in registry.recall_all(SINCE).await? {
        if sealer.has(&fingerprint) {
            registry.forget(&name).await?;
        }
    }
    Ok(())
}

/// The key of an embedded store's records, and its sealed form, from the registry. Makes a new one if there is none.
pub(crate) fn store_key(
    sealer: &Sealer,
    recall: &dyn Fn(&str) -> Option<String>,
) -> ([u8; 32], String) {
    if let Some(sealed) = recall(STORE_KEY) {
        let opened = sealer.open(&sealed, STORE_KEY_PLACE).ok();
        // If it does not open, the service has another sealing key. That is reported before anything is read.
        let key = opened.and_then(|key| key.try_into().ok());
        return (key.unwrap_or_default(), sealed);
    }
    let made_with = recall(SEALING_KEY);
    let made_with = made_with.and_then(|made_with| sealer.with_fingerprint(&made_with).cloned());
    // A store from before this key existed keeps the derived key that its records are sealed with.
    let key = match &made_with {
        Some(old) => Codec::derived(old),
        None => sealer.fresh_key(),
    };
    let sealed = made_with
        .as_ref()
        .unwrap_or(sealer)
        .seal(&key, STORE_KEY_PLACE);
    (key, sealed)
}
