//! A batch of messages on its way into the store. The revisions that the store keeps become rows, and the rows are
//! written.

use std::{collections::HashMap, sync::Arc};

use tokio_util::task::AbortOnDropHandle;

use super::{
    Decoded, Differing, Keeps, Order, RebuildError, Rebuilt,
    cores::on_all_cores,
    logged::Logged,
    opening::{Shut, keep, open},
    retry::until_done,
};
use crate::store::StoreError;
use tandem_model::{cloudevents::RESTORED, message::Message};
use tandem_runtime::shutdown::Shutdown;

/// An event, and the record that it came in.
type FromRecord<E> = (Decoded<E>, Message);

/// Rows that are ready to be written, and counts of the messages that they came from.
pub(super) struct Prepared<Row> {
    /// Each row with its id and revision, in order of these.
    rows: Vec<(String, i64, Row)>,
    /// For each id, the newest event that cannot be opened.
    unopened: Vec<Shut>,
    read: u64,
    refused: u64,
}

/// The outcome of writing a batch.
pub(super) struct Written {
    pub(super) read: u64,
    pub(super) refused: u64,
    pub(super) written: u64,
    pub(super) differing: Differing,
    pub(super) waiting: u64,
}

/// The ids that a message names outside its body.
pub(super) fn names_of(message: &Message) -> impl Iterator<Item = &str> {
    message
        .key
        .as_deref()
        .into_iter()
        .chain(message.header("ce_subject"))
}

/// Turns messages into rows. Keeps the revisions of each id that the store keeps.
pub(super) async fn prepare<R: Rebuilt>(
    target: &Arc<R>,
    logged: &mut Logged,
    messages: Vec<Message>,
    shutdown: &Shutdown,
) -> Result<Prepared<R::Row>, RebuildError> {
    let read = messages.len() as u64;
    let mut refused = 0;
    let decoder = Arc::clone(target);
    let decoded = on_all_cores(messages, move |message| match decoder.decode(&message) {
        Some(decoded) => Ok((decoded, message)),
        None => Err(names_of(&message).map(str::to_owned).collect::<Vec<_>>()),
    })
    .await
    .map_err(RebuildError::BrokenOff)?;
    // The revisions of each id. The last one is written.
    let mut by_id: HashMap<String, Vec<FromRecord<R::Event>>> = HashMap::new();
    for one in decoded {
        match one {
            Ok((decoded, message)) => {
                let is_first = logged.note(&decoded.id, decoded.revision);
                if is_first && message.header(RESTORED).is_some() {
                    logged.note_restored(&decoded.id, decoded.revision);
                }
                if is_first || target.keeps() == Keeps::Newest {
                    let revisions = by_id.entry(decoded.id.clone()).or_default();
                    // Of equal revisions, the one that was published last comes last. It was published again with
                    // another sealing key.
                    let place =
                        revisions.partition_point(|(one, _)| one.revision <= decoded.revision);
                    revisions.insert(place, (decoded, message));
                }
            }
            Err(names) => {
                refused += 1;
                names.iter().for_each(|name| logged.doubt(name));
            }
        }
    }
    let mut rows: Vec<(String, i64, R::Row)> = Vec::with_capacity(by_id.len());
    let mut unopened: HashMap<String, Shut> = HashMap::new();
    while !by_id.is_empty() {
        let next: Vec<(Decoded<R::Event>, Message)> = match target.keeps() {
            Keeps::Each => by_id.drain().flat_map(|(_, revisions)| revisions).collect(),
            Keeps::Newest => by_id.values_mut().filter_map(Vec::pop).collect(),
        };
        let (next, messages): (Vec<_>, Vec<_>) = next.into_iter().unzip();
        let opened = open(target, next, shutdown).await?;
        for ((id, revision, row), message) in opened.into_iter().zip(messages) {
            match row {
                Ok(row) => {
                    by_id.remove(&id);
                    rows.push((id, revision, row));
                }
                // An earlier revision may open.
                Err(reason) => {
                    unopened.entry(id.clone()).or_insert(Shut {
                        id,
                        revision,
                        message,
                        unopened: reason,
                    });
                }
            }
        }
        by_id.retain(|_, revisions| !revisions.is_empty());
    }
    // Sorted by id, so that neighbours in the store are written together.
    rows.sort_unstable_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    Ok(Prepared {
        rows,
        unopened: unopened.into_values().collect(),
        read,
        refused,
    })
}

/// Writes a batch in a separate task.
pub(super) async fn write<R: Rebuilt>(
    target: &Arc<R>,
    batch: Prepared<R::Row>,
    order: Order,
    shutdown: &Shutdown,
) -> Result<Written, RebuildError> {
    let (target, process) = (Arc::clone(target), shutdown);
    let shutdown = process.clone();
    let writing = AbortOnDropHandle::new(process.spawn(async move {
        let mut rows = batch.rows;
        if order.distrusts && target.keeps() == Keeps::Newest {
            let ids: Vec<String> = rows.iter().map(|(id, _, _)| id.clone()).collect();
            let stored = until_done(target.as_ref(), &shutdown, || target.revisions(&ids)).await?;
            rows.retain(|(id, revision, _)| stored.get(id).is_none_or(|held| held < revision));
        }
        let rows: Vec<R::Row> = rows.into_iter().map(|(_, _, row)| row).collect();
        let rows = rows.as_slice();
        let write = || target.write(rows, order.entries);
        let differing = until_done(target.as_ref(), &shutdown, write).await?;
        let shut = batch.unopened.as_slice();
        let waiting =
            until_done(target.as_ref(), &shutdown, || keep(target.as_ref(), shut)).await?;
        Ok(Written {
            read: batch.read,
            refused: batch.refused,
            written: rows.len() as u64,
            differing,
            waiting,
        })
    }));
    writing.await.map_err(|error| {
        RebuildError::BrokenOff(StoreError::Unavailable(format!(
            "a write was broken off: {error}"
        )))
    })?
}
