//! Reads the log once more, for the newest revision of a few aggregates. They are reverted to that revision.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Decoded, RebuildError, Rebuilt,
    opening::open,
    reading::{Reading, early},
    writing::names_of,
};
use crate::{log::Log, store::PublishedRow};
use tandem_runtime::shutdown::Shutdown;

/// Reads the log once more, for the newest revision of `few`.
pub(super) async fn newest_of<R: Rebuilt>(
    target: &Arc<R>,
    log: &Arc<dyn Log>,
    few: &[PublishedRow],
    shutdown: &Shutdown,
) -> Result<HashMap<String, (i64, R::Row)>, RebuildError> {
    let ids: HashSet<&str> = few.iter().map(|seen| seen.id.as_str()).collect();
    let mut newest: HashMap<String, Decoded<R::Event>> = HashMap::with_capacity(ids.len());
    let mut reading = Reading::new(log, target.topic(), shutdown);
    let ends = reading.ends().await?;
    let total = reading.left(&ends);
    let mut ahead = reading.start(&ends)?;
    let mut read = 0;
    loop {
        let messages = tokio::select! {
            biased;
            () = shutdown.requested() => return Err(RebuildError::Stopping),
            messages = ahead.batches.recv() => messages,
        };
        let Some(messages) = messages else { break };
        read += messages.len() as u64;
        let theirs = messages
            .iter()
            .filter(|message| names_of(message).any(|name| ids.contains(name)));
        for decoded in theirs.filter_map(|message| target.decode(message)) {
            let known = newest.get(&decoded.id).map_or(0, |known| known.revision);
            if decoded.revision > known {
                newest.insert(decoded.id.clone(), decoded);
            }
        }
    }
    reading
        .finish(ahead)
        .await
        .map_err(|ended| early(&ended, target.topic(), read, total))?;
    let newest: Vec<Decoded<R::Event>> = newest.into_values().collect();
    let opened = open(target, newest, shutdown).await?;
    Ok(opened
        .into_iter()
        .filter_map(|(id, revision, row)| Some((id, (revision, row.ok()?))))
        .collect())
}
