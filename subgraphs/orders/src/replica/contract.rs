#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    reason = "for tests alone, where the feature is on as well"
)]
//! The contract of replica stores: one test suite, run on each adapter.

use std::sync::Arc;

use tandem_event_path::store::PublishedRow;

use super::{Contact, Name, Replaces, ReplicaCustomer, ReplicaStore};
use crate::domain::{Address, AddressType};

/// A customer at a revision. The first name contains the revision.
#[must_use]
pub fn customer(id: &str, revision: i64) -> ReplicaCustomer {
    ReplicaCustomer {
        id: id.to_owned(),
        name: Name {
            title: None,
            first_name: format!("First{revision}"),
            middle_name: None,
            last_name: "Last".to_owned(),
            suffix: Some("Jr.".to_owned()),
        },
        contact: Contact {
            primary_phone: "555-666-7777".to_owned(),
            secondary_phone: None,
            email: "[email protected]".to_owned(),
        },
        addresses: vec![Address {
            kind: AddressType::Shipping,
            description: Some("Home".to_owned()),
            address1: "123 Main Street".to_owned(),
            address2: None,
            city: "New York".to_owned(),
            state: "NY".to_owned(),
            postal_code: "10110".to_owned(),
        }],
        revision,
        changed_at: chrono::Utc::now().into(),
        replicated_at: chrono::Utc::now().into(),
        data_key: None,
        erased: false,
    }
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Runs the whole suite on an empty store.
pub async fn run(store: Arc<dyn ReplicaStore>) {
    store.ping().await.unwrap();
    what_is_written_is_read_in_the_order_asked_for(store.as_ref()).await;
    the_newest_revision_wins_whatever_the_order(store.as_ref()).await;
    one_old_customer_does_not_hold_the_others_back(store.as_ref()).await;
    what_is_shown_is_read_at_once_and_kept_afterwards(store.as_ref()).await;
    a_rebuild_writes_the_same_revision_again_and_never_an_older_one(store.as_ref()).await;
    rows_are_removed_and_set_back_only_as_they_were_seen(store.as_ref()).await;
    pages_are_in_order_of_id(store.as_ref()).await;
    a_page_ends_before_it_fills_the_memory(store.as_ref()).await;
    racing_writers_leave_the_newest(store).await;
}

async fn what_is_written_is_read_in_the_order_asked_for(store: &dyn ReplicaStore) {
    store.upsert(&[], Replaces::Older).await.unwrap();
    assert!(store.get_many(&[]).await.unwrap().is_empty());
    let (one, two) = (customer("c-1", 1), customer("c-2", 1));
    store
        .upsert(&[one.clone(), two.clone()], Replaces::Older)
        .await
        .unwrap();
    let read = store
        .get_many(&ids(&["c-2", "none", "c-1", "c-2"]))
        .await
        .unwrap();
    assert_eq!(read, [Some(two.clone()), None, Some(one), Some(two)]);
}

async fn the_newest_revision_wins_whatever_the_order(store: &dyn ReplicaStore) {
    for revision in [3, 1, 3, 2, 5, 4] {
        store
            .upsert(&[customer("c-3", revision)], Replaces::Older)
            .await
            .unwrap();
    }
    let read = store.get_many(&ids(&["c-3"])).await.unwrap();
    assert_eq!(read[0].as_ref().unwrap().revision, 5);
    assert_eq!(read[0].as_ref().unwrap().name.first_name, "First5");
}

async fn one_old_customer_does_not_hold_the_others_back(store: &dyn ReplicaStore) {
    let batch = vec![customer("c-4", 1), customer("c-3", 2), customer("c-5", 1)];
    store.upsert(&batch, Replaces::Older).await.unwrap();
    let read = store.get_many(&ids(&["c-3", "c-4", "c-5"])).await.unwrap();
    let revisions: Vec<i64> = read
        .into_iter()
        .flatten()
        .map(|read| read.revision)
        .collect();
    assert_eq!(revisions, [5, 1, 1]);
}

async fn what_is_shown_is_read_at_once_and_kept_afterwards(store: &dyn ReplicaStore) {
    let batch = vec![customer("c-8", 2), customer("c-9", 1)];
    let epoch = store.apply_early(&batch).await.unwrap();
    let again = store
        .apply_early(&[customer("c-8", 1), customer("c-9", 2)])
        .await;
    // A store that makes writes durable at once has no epoch.
    assert_eq!(again.unwrap(), epoch);
    let read = store.get_many(&ids(&["c-8", "c-9"])).await.unwrap();
    let revisions: Vec<i64> = read.iter().flatten().map(|read| read.revision).collect();
    assert_eq!(revisions, [2, 2]);
    let listed = store.page(Some("c-7"), 2).await.unwrap();
    assert_eq!(listed, read.into_iter().flatten().collect::<Vec<_>>());
    if let Some(epoch) = epoch {
        assert!(store.confirm_durable(&epoch).await.unwrap());
    }
}

async fn a_rebuild_writes_the_same_revision_again_and_never_an_older_one(store: &dyn ReplicaStore) {
    let read_today = |revision| {
        let mut customer = customer("c-7", revision);
        customer.contact.email = "read@today".to_owned();
        customer
    };
    let held = async || {
        let read = store.get_many(&ids(&["c-7"])).await.unwrap();
        let held = read[0].as_ref().unwrap();
        (held.revision, held.contact.email.clone())
    };
    store
        .upsert(&[customer("c-7", 3)], Replaces::OlderOrSame)
        .await
        .unwrap();
    store
        .upsert(&[read_today(3)], Replaces::Older)
        .await
        .unwrap();
    assert_eq!(held().await, (3, "[email protected]".to_owned()));
    store
        .upsert(&[read_today(2)], Replaces::OlderOrSame)
        .await
        .unwrap();
    assert_eq!(held().await, (3, "[email protected]".to_owned()));
    store
        .upsert(&[read_today(3)], Replaces::OlderOrSame)
        .await
        .unwrap();
    assert_eq!(held().await, (3, "read@today".to_owned()));
}

/// All rows, read in pages of two.
async fn all_published(store: &dyn ReplicaStore) -> Vec<PublishedRow> {
    let mut all: Vec<PublishedRow> = Vec::new();
    loop {
        let page = store.published(all.last(), 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn rows_are_removed_and_set_back_only_as_they_were_seen(store: &dyn ReplicaStore) {
    let seen = async |id: &str| {
        let all = all_published(store).await;
        assert!(all.is_sorted_by(|one, next| one.id < next.id));
        all.into_iter().find(|seen| seen.id == id).unwrap()
    };
    let held = async |id: &str| {
        let read = store.get_many(&ids(&[id])).await.unwrap();
        read[0].as_ref().map(|held| held.revision)
    };
    // The same revision, replicated at another time.
    let at = |revision, second: i64| {
        let mut customer = customer("c-8", revision);
        customer.replicated_at = chrono::DateTime::from_timestamp(1_700_000_000 + second, 0)
            .unwrap()
            .into();
        customer
    };
    assert_eq!(store.remove(&[]).await.unwrap(), 0);
    assert_eq!(store.revert(&[]).await.unwrap(), 0);
    store.upsert(&[at(9, 1)], Replaces::Older).await.unwrap();
    let first = seen("c-8").await;
    assert_eq!(first.revision, 9);
    let back = [(first.clone(), at(2, 2))];
    assert_eq!(store.revert(&back).await.unwrap(), 1);
    assert_eq!(held("c-8").await, Some(2));
    assert_eq!(store.revert(&back).await.unwrap(), 0);
    store.upsert(&[at(9, 3)], Replaces::Older).await.unwrap();
    assert_eq!(store.revert(&back).await.unwrap(), 0);
    assert_eq!(store.remove(std::slice::from_ref(&first)).await.unwrap(), 0);
    assert_eq!(held("c-8").await, Some(9));
    let second = seen("c-8").await;
    assert_eq!(store.remove(&[first, second.clone()]).await.unwrap(), 1);
    assert_eq!(held("c-8").await, None);
    assert_eq!(
        store.remove(std::slice::from_ref(&second)).await.unwrap(),
        0
    );
    // A row that was removed is not created again.
    assert_eq!(store.revert(&[(second, at(2, 4))]).await.unwrap(), 0);
    assert_eq!(held("c-8").await, None);
}

async fn pages_are_in_order_of_id(store: &dyn ReplicaStore) {
    let many: Vec<_> = (0..1_200)
        .map(|n| customer(&format!("p-{n:04}"), 1))
        .collect();
    store.upsert(&many, Replaces::Older).await.unwrap();
    let mut after = Some("p-".to_owned());
    let mut seen = 0;
    loop {
        let page = store.page(after.as_deref(), 500).await.unwrap();
        for read in &page {
            assert_eq!(read.id, format!("p-{seen:04}"));
            seen += 1;
        }
        match page.last() {
            Some(last) => after = Some(last.id.clone()),
            None => break,
        }
    }
    assert_eq!(seen, 1_200);
    assert_eq!(store.page(None, 1).await.unwrap()[0].id, "c-1");
}

async fn a_page_ends_before_it_fills_the_memory(store: &dyn ReplicaStore) {
    let large = (0..40).map(|n| {
        let mut customer = customer(&format!("q-{n:02}"), 1);
        customer.addresses[0].description = Some("x".repeat(200_000));
        customer
    });
    let large: Vec<_> = large.collect();
    store.upsert(&large, Replaces::Older).await.unwrap();
    let (mut after, mut pages) = ("q-".to_owned(), Vec::new());
    loop {
        let page = store.page(Some(&after), 500).await.unwrap();
        match page.last() {
            Some(last) => after.clone_from(&last.id),
            None => break,
        }
        pages.push(page.len());
    }
    assert_eq!(pages.iter().sum::<usize>(), 40);
    assert!(pages.iter().all(|page| *page <= 12), "{pages:?}");
}

async fn racing_writers_leave_the_newest(store: Arc<dyn ReplicaStore>) {
    let writers = (1..=40).map(|revision| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .upsert(&[customer("c-6", revision)], Replaces::Older)
                .await
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    let read = store.get_many(&ids(&["c-6"])).await.unwrap();
    assert_eq!(read[0].as_ref().unwrap().revision, 40);
}
