#![allow(clippy::unwrap_used, missing_docs)]
//! A rebuild of the audit trail from a log that was restored. The store knows more about a change than such a log does.

mod common;

use std::sync::Arc;

use axum::http::StatusCode;
use common::{Accounts, SAMPLE, message};
use tandem_accounts::audit::AuditProjection;
use tandem_event_path::{
    log_restore::RESTORED,
    rebuild::{Differing, Entries, LoggedEntry, RebuildTrail, Rebuilt},
    store::{ChangeRecord, ChangesRequest},
};

/// The offset of the change in the log now. In the trail the change has the offset 0.
const ELSEWHERE: i64 = 40;

struct Trail {
    accounts: Accounts,
    target: RebuildTrail<AuditProjection>,
    /// The entry for the change, as a log that was created again has it.
    row: LoggedEntry,
}

impl Trail {
    /// A trail with one entry, whose change is at another offset in the log: published once more, or restored.
    async fn of_one(is_restored: bool) -> Self {
        let accounts = Accounts::start().await;
        let created = accounts
            .send("POST", "/accounts/customer/create", SAMPLE)
            .await;
        assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
        accounts.project_audit().await;
        let changes = &accounts.stores.changes;
        let projection = AuditProjection::new(Arc::clone(changes));
        let target = RebuildTrail::new(
            Arc::new(projection),
            Arc::clone(changes),
            "accounts.customer.change",
        );
        let mut told = message(&accounts.pending().await[0], ELSEWHERE);
        if is_restored {
            told.headers.push((RESTORED.to_owned(), b"true".to_vec()));
        }
        let row = target.decode(&told).unwrap().event;
        Self {
            accounts,
            target,
            row,
        }
    }

    async fn write(&self, entries: Entries) -> Differing {
        let rows = [self.row.clone()];
        self.target.write(&rows, entries).await.unwrap()
    }

    async fn stored(&self) -> Vec<ChangeRecord> {
        let request = ChangesRequest {
            subject: "123456".to_owned(),
            after_revision: 0,
            limit: 10,
        };
        let pages = self.accounts.stores.changes.changes(&[request]).await;
        pages.unwrap().remove(0)
    }
}

#[tokio::test]
async fn an_entry_stays_where_the_log_has_no_more_than_a_restored_event() {
    let trail = Trail::of_one(true).await;
    let before = trail.stored().await;
    assert_eq!(before[0].offset, 0);
    for entries in [Entries::Left, Entries::Replaced] {
        let differing = trail.write(entries).await;
        assert_eq!((differing.only_stored, differing.replaced), (1, 0));
        assert!(differing.left.is_empty());
        assert_eq!(trail.stored().await, before);
    }
    // If nothing is stored, the row of the log is the best that there is.
    let seen = trail.target.published(None, 10).await.unwrap();
    assert_eq!(trail.target.remove(&seen).await.unwrap(), 1);
    let differing = trail.write(Entries::Left).await;
    assert_eq!(differing.only_stored, 0);
    assert_eq!(trail.stored().await[0].offset, ELSEWHERE);
    assert_eq!(trail.write(Entries::Left).await.only_stored, 0);
}

#[tokio::test]
async fn an_entry_that_differs_from_an_event_that_was_not_restored_is_told_and_replaced_at_an_order()
 {
    let trail = Trail::of_one(false).await;
    let differing = trail.write(Entries::Left).await;
    assert_eq!((differing.only_stored, differing.left.len()), (0, 1));
    assert_eq!(trail.stored().await[0].offset, 0);
    assert_eq!(trail.write(Entries::Replaced).await.replaced, 1);
    assert_eq!(trail.stored().await[0].offset, ELSEWHERE);
}
