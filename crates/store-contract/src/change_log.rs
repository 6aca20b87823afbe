//! The cases of [`ChangeLog`].

use chrono::DateTime;
use uuid::Uuid;

use super::{Example, Fixture};
use tandem_event_path::store::{ChangeLog, ChangeRecord, ChangesRequest, PublishedRow};

fn record(subject: &str, revision: i64, offset: i64) -> ChangeRecord {
    ChangeRecord {
        subject: subject.to_owned(),
        revision,
        event_id: Uuid::now_v7().to_string(),
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
    // Entries need not be read in the order in which they arrived.
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

pub async fn entries_put_back_replace_what_differs<A: Example>(fixture: &impl Fixture<A>) {
    let log = fixture.change_log().await;
    let told: Vec<ChangeRecord> = (1..=600)
        .map(|revision| record("a", revision, revision))
        .collect();
    let mut stored = told[..4].to_vec();
    stored[1].changed_by = "forger".to_owned();
    stored[2].event_id = "of another producer / 1".to_owned();
    stored[3].offset = 99;
    log.append(stored).await.unwrap();
    assert_eq!(log.put_back(&[]).await.unwrap(), 0);
    assert_eq!(log.put_back(&told).await.unwrap(), 3);
    assert_eq!(log.put_back(&told).await.unwrap(), 0);
    let read = log.changes(&[request("a", 0, 1_000)]).await.unwrap();
    assert_eq!(read, [told]);
}

/// All entries, read in pages of two.
async fn all_published(log: &dyn ChangeLog) -> Vec<PublishedRow> {
    let mut all: Vec<PublishedRow> = Vec::new();
    loop {
        let page = log.published(all.last(), 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub async fn entries_are_listed_and_removed_only_as_they_were_seen<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let log = fixture.change_log().await;
    let log = log.as_ref();
    assert!(all_published(log).await.is_empty());
    let entries = [("b", 1), ("a", 2), ("a", 10), ("a", 1), ("c", 1)];
    let entries = entries.map(|(subject, revision)| record(subject, revision, 1));
    log.append(entries.to_vec()).await.unwrap();
    let all = all_published(log).await;
    let listed: Vec<(&str, i64)> = all
        .iter()
        .map(|seen| (seen.id.as_str(), seen.revision))
        .collect();
    assert_eq!(listed, [("a", 1), ("a", 2), ("a", 10), ("b", 1), ("c", 1)]);

    // It was put back meanwhile, so it is not what was seen.
    let told = record("a", 2, 7);
    assert_eq!(log.put_back(std::slice::from_ref(&told)).await.unwrap(), 1);
    assert_eq!(log.remove(&[]).await.unwrap(), 0);
    assert_eq!(log.remove(&all[1..4]).await.unwrap(), 2);
    assert_eq!(log.remove(&all[1..4]).await.unwrap(), 0);
    // Another entry with that subject and revision is added afterwards.
    let next = record("b", 1, 8);
    log.append(vec![next.clone()]).await.unwrap();
    assert_eq!(log.remove(&all[3..4]).await.unwrap(), 0);
    let pages = ["a", "b"].map(|subject| request(subject, 0, 10));
    assert_eq!(
        log.changes(&pages).await.unwrap(),
        [vec![entries[3].clone(), told], vec![next]]
    );
}
