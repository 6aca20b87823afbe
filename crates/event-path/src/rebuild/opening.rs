//! Decrypts the sealed parts of messages. A message that cannot be decrypted yet is kept until its data key arrives.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;

use super::{Decoded, Entries, RebuildError, Rebuilt, cores::on_all_cores, retry::until_done};
use crate::{data_keys::Unopened, store::StoreError, waiting::Takes};
use tandem_model::message::Message;
use tandem_runtime::shutdown::Shutdown;

/// An event that cannot be opened.
#[derive(Clone)]
pub(super) struct Shut {
    pub(super) id: String,
    pub(super) revision: i64,
    pub(super) message: Message,
    pub(super) unopened: Unopened,
}

/// Opens decoded messages. Each row comes with its id and revision.
pub(super) async fn open<R: Rebuilt>(
    target: &Arc<R>,
    decoded: Vec<Decoded<R::Event>>,
    shutdown: &Shutdown,
) -> Result<Vec<(String, i64, Result<R::Row, Unopened>)>, RebuildError> {
    let events: Vec<&R::Event> = decoded.iter().map(|decoded| &decoded.event).collect();
    let keys = until_done(target.as_ref(), shutdown, || target.keys(&events)).await?;
    drop(events);
    let opening = Arc::clone(target);
    on_all_cores(decoded, move |decoded| {
        let row = opening.open(decoded.event, &keys);
        (decoded.id, decoded.revision, row)
    })
    .await
    .map_err(RebuildError::BrokenOff)
}

/// Keeps events until they can be opened, unless the store already has their revision. Returns how many wait.
pub(super) async fn keep<R: Rebuilt>(target: &R, shut: &[Shut]) -> Result<u64, StoreError> {
    if shut.is_empty() {
        return Ok(0);
    }
    let ids: Vec<String> = shut.iter().map(|shut| shut.id.clone()).collect();
    let stored = target.revisions(&ids).await?;
    let news = |shut: &&Shut| {
        stored
            .get(&shut.id)
            .is_none_or(|held| *held < shut.revision)
    };
    let kept: Vec<(Message, Unopened)> = shut
        .iter()
        .filter(news)
        .map(|shut| (shut.message.clone(), shut.unopened.clone()))
        .collect();
    let count = kept.len() as u64;
    match target.waiting() {
        Some(waiting) => waiting.keep(kept).await?,
        None => {
            for (message, unopened) in kept {
                tracing::error!(target_name = target.name(), position = ?message.position, %unopened, "an event does not open");
            }
        }
    }
    Ok(count)
}

#[async_trait]
impl<R: Rebuilt> Takes for R {
    async fn take(&self, messages: &[Message]) -> Result<Vec<Option<Unopened>>, StoreError> {
        let decoded: Vec<Option<Decoded<R::Event>>> = messages
            .iter()
            .map(|message| self.decode(message))
            .collect();
        let events: Vec<&R::Event> = decoded
            .iter()
            .flatten()
            .map(|decoded| &decoded.event)
            .collect();
        let keys = self.keys(&events).await?;
        drop(events);
        let mut newest: HashMap<String, (i64, R::Row)> = HashMap::new();
        let mut answers = Vec::with_capacity(messages.len());
        for (decoded, message) in decoded.into_iter().zip(messages) {
            let Some(Decoded {
                id,
                revision,
                event,
            }) = decoded
            else {
                answers.push(Some(Unopened {
                    subject: message.key.clone().unwrap_or_default(),
                    reason: "it cannot be read".to_owned(),
                }));
                continue;
            };
            match self.open(event, &keys) {
                Ok(row) => {
                    if newest.get(&id).is_none_or(|(known, _)| *known < revision) {
                        newest.insert(id, (revision, row));
                    }
                    answers.push(None);
                }
                Err(unopened) => answers.push(Some(unopened)),
            }
        }
        let mut rows: Vec<(String, R::Row)> =
            newest.into_iter().map(|(id, (_, row))| (id, row)).collect();
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let rows: Vec<R::Row> = rows.into_iter().map(|(_, row)| row).collect();
        self.write(&rows, Entries::Left).await?;
        Ok(answers)
    }
}
