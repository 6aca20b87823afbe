//! The cases of [`ChangeLog`](crate::store::ChangeLog).

use chrono::DateTime;
use uuid::Uuid;

use super::{Example, Fixture};
use crate::store::{ChangeRecord, ChangesRequest};

fn record(subject: &str, revision: i64, offset: i64) -> ChangeRecord {
    ChangeRecord {
        subject: subject.to_owned(),
        revision,
        event_id: Uuid::now_v7(),
        kind: "CHANGED".to_owned(),
        changed_at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
        changed_by: "somebody".to_owned(),
        changed_fields: vec!["name".to_owned(), "contact".to_owned()],
        partition: 3,
        offset,
    }
}

fn request(subject: &str, after_revision: i64, limit: usize) -> ChangesRequest {
    ChangesRequest {
        subject: subject.to_owned(),
        after_revision,
        limit,
    }
}

pub async fn of_one_revision_the_first_seen_stays<A: Example>(fixture: &impl Fixture<A>) {
    let log = fixture.change_log().await;
    let first = record("a", 1, 10);
    log.append(vec![first.clone()]).await.unwrap();
    let next = record("a", 2, 12);
    log.append(vec![record("a", 1, 11), next.clone(), record("a", 2, 13)])
        .await
        .unwrap();
    log.append(Vec::new()).await.unwrap();
    assert_eq!(
        log.changes(&[request("a", 0, 10)]).await.unwrap(),
        [vec![first, next]]
    );
}

pub async fn changes_are_read_in_pages<A: Example>(fixture: &impl Fixture<A>) {
    let log = fixture.change_log().await;
    let a: Vec<_> = (1..=12)
        .map(|revision| record("a", revision, revision))
        .collect();
    let b: Vec<_> = (1..=3)
        .map(|revision| record("b", revision, 100 + revision))
        .collect();
    // The order of arrival is not the order of reading.
    log.append(a.iter().rev().chain(&b).cloned().collect())
        .await
        .unwrap();
    let requests = [
        request("a", 0, 5),
        request("b", 1, 5),
        request("a", 9, 5),
        request("absent", 0, 5),
        request("a", 0, 0),
    ];
    let pages = log.changes(&requests).await.unwrap();
    assert_eq!(
        pages,
        [
            a[..5].to_vec(),
            b[1..].to_vec(),
            a[9..].to_vec(),
            vec![],
            vec![]
        ]
    );
    assert!(log.changes(&[]).await.unwrap().is_empty());
}

pub async fn the_audit_trail_is_there_after_reopening<A: Example>(fixture: &impl Fixture<A>) {
    let kept = record("a", 1, 1);
    fixture
        .change_log()
        .await
        .append(vec![kept.clone()])
        .await
        .unwrap();
    let log = fixture.change_log().await;
    assert_eq!(
        log.changes(&[request("a", 0, 10)]).await.unwrap(),
        [vec![kept]]
    );
}
