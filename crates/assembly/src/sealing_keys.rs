//! Which sealing keys a store needs: it remembers the fingerprint of every key that may have sealed something in it, until a replacement is
//! through, and a service that lacks one of them does not start.

use tandem_event_path::{
    sealing::Sealer,
    store::{Registry, StoreError},
};
use tandem_store_redb::Codec;

/// Under this name a store remembers the fingerprint of the sealing key that it was made with, or that was the newest when a replacement was
/// through.
const SEALING_KEY: &str = "sealing-key";
/// Names that begin so hold a fingerprint each, of keys that have come first since.
const SINCE: &str = "sealing-keys/";

/// Under this name an embedded store remembers the key that its records are sealed with, sealed with the sealing key.
pub(crate) const STORE_KEY: &str = "store-key";
/// What the store's key is sealed for.
const STORE_KEY_PLACE: &[u8] = b"store-key";

/// A store may hold what a key has sealed that was not given.
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

/// Judges whether the keys of a service open what its store holds. If they do, the store remembers the one that seals from now on: this
/// comes before anything is sealed.
///
/// # Errors
/// When the store does not answer.
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

/// Notes that a store needs no other sealing key than the newest: of an embedded store the key of its records is sealed anew. What is
/// remembered of keys that this sealer does not have stays: another instance seals with them.
///
/// # Errors
/// When the store does not answer, or its key does not open.
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

/// The key of an embedded store's records, and the same sealed, by what its registry remembers.
pub(crate) fn store_key(
    sealer: &Sealer,
    recall: &dyn Fn(&str) -> Option<String>,
) -> ([u8; 32], String) {
    if let Some(sealed) = recall(STORE_KEY) {
        let opened = sealer.open(&sealed, STORE_KEY_PLACE).ok();
        // Where it does not open the sealing key is another one, which is told before anything is read.
        let key = opened.and_then(|key| key.try_into().ok());
        return (key.unwrap_or_default(), sealed);
    }
    let made_with = recall(SEALING_KEY);
    let made_with = made_with.and_then(|made_with| sealer.with_fingerprint(&made_with).cloned());
    // A store from before it had a key of its own goes on with the one that was derived.
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
