//! The floors on the embedded store: the services' work, done with bare redb. It durably commits rows of the same size.

use std::{path::Path, sync::mpsc};

use futures::future::BoxFuture;
use redb::{Database, TableDefinition};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::visible::next_id;

/// The size of a stored customer with its pending event.
const BYTES: usize = 2_600;

const TABLE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("floor");

/// An empty store. It is removed when this is dropped.
pub struct BareStore {
    database: Database,
    row: Vec<u8>,
    _directory: TempDir,
}

impl BareStore {
    /// Makes a store on the same disk as this directory.
    pub fn new(beside: &Path) -> Self {
        let directory = tempfile::tempdir_in(beside).unwrap();
        Self {
            database: Database::create(directory.path().join("floor.redb")).unwrap(),
            row: vec![b'x'; BYTES],
            _directory: directory,
        }
    }

    /// One durable commit of this many new rows.
    pub fn commit(&self, rows: usize) {
        let transaction = self.database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for _ in 0..rows {
                table
                    .insert(next_id().as_str(), self.row.as_slice())
                    .unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    /// Writes of one row each. All waiting writes share the next commit.
    pub fn gathering(self) -> impl Fn() -> BoxFuture<'static, ()> {
        let (queue, waiting) = mpsc::channel::<oneshot::Sender<()>>();
        std::thread::spawn(move || {
            while let Ok(first) = waiting.recv() {
                let together: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
                self.commit(together.len());
                for one in together {
                    // A caller that no longer waits needs no answer.
                    let _ = one.send(());
                }
            }
        });
        move || {
            let queue = queue.clone();
            Box::pin(async move {
                let (committed, wait) = oneshot::channel();
                queue.send(committed).unwrap();
                wait.await.unwrap();
            })
        }
    }
}
