//! The operations of a rebuild: restore, remove and revert, each only if the stored row is unchanged since it was seen.

use tandem_event_path::store::{Outcome, PageRequest, PublishedRow};

use super::{
    Example, Fixture,
    lists::filter_like,
    written::{Store, answered, get, ids, must_write, revision, write_of},
};

pub async fn restored_states_replace_all_but_newer_ones<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let first = A::example("old", 1);
    let write = write_of(&first, 1, Some("key"));
    let event = write.event.clone();
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    let newer = A::example("newer", 1).changed(1);
    must_write(&store, &A::example("newer", 1), 1).await;
    must_write(&store, &newer, 2).await;

    let second = first.changed(2);
    let absent = A::example("absent", 2).changed(1).changed(2);
    let restored = vec![second.clone(), A::example("newer", 2), absent.clone()];
    for _ in 0..2 {
        store.restore(&restored).await.unwrap();
        let stored = get(&store, "old").await.unwrap();
        assert_eq!(stored.state, second);
        assert_eq!(stored.pending, std::slice::from_ref(&event));
        assert_eq!(get(&store, "newer").await.unwrap().state, newer);
        let stored = get(&store, "absent").await.unwrap();
        assert_eq!(stored.state, absent);
        assert!(stored.pending.is_empty());
    }
    assert_eq!(answered(&store, "key").await, Some(first));
    for fields in A::INDEXES {
        let filter = filter_like(fields, &A::example("x", 2));
        let request = PageRequest {
            filter,
            after: None,
            limit: 10,
        };
        let page = store.pages(&[request]).await.unwrap().remove(0);
        assert_eq!(ids(&page), ["absent", "old"]);
    }
    // Commands continue from the restored revisions.
    must_write(&store, &absent.changed(1), 9).await;
    must_write(&store, &second.changed(1), 9).await;
    assert_eq!(store.backlog().await.unwrap().events, 5);
}

pub async fn many_states_are_restored_at_once<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let newer = A::example("n0007", 1).changed(1);
    must_write(&store, &A::example("n0007", 1), 1).await;
    must_write(&store, &newer, 2).await;
    let states: Vec<A> = (0..1_200)
        .map(|number| A::example(&format!("n{number:04}"), number % 3))
        .collect();
    store.restore(&[]).await.unwrap();
    // Of every three aggregates, one exists already, one exists with other content at the same revision, and one is
    // missing.
    let there: Vec<A> = (0..1_200)
        .filter(|number| number % 3 < 2)
        .map(|number| A::example(&format!("n{number:04}"), 0))
        .collect();
    store.restore(&there).await.unwrap();
    store.restore(&states).await.unwrap();
    let ids: Vec<String> = states.iter().map(|state| state.id().to_owned()).collect();
    let stored = store.get_many(&ids).await.unwrap();
    for (state, stored) in states.iter().zip(stored) {
        let wanted = if state.id() == "n0007" { &newer } else { state };
        assert_eq!(*wanted, stored.unwrap().state);
    }
}

/// All aggregates without pending events, read in pages of two.
async fn all_published<A: Example>(store: &Store<A>) -> Vec<PublishedRow> {
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

async fn seen<A: Example>(store: &Store<A>, id: &str) -> PublishedRow {
    let all = all_published(store).await;
    all.into_iter().find(|seen| seen.id == id).unwrap()
}

pub async fn what_has_nothing_pending_is_listed_in_order_of_id<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    assert!(all_published(&store).await.is_empty());
    for id in ["b", "a", "d", "c", "e"] {
        must_write(&store, &A::example(id, 1), 1).await;
    }
    assert!(all_published(&store).await.is_empty());
    store
        .restore(&[A::example("f", 1).changed(1)])
        .await
        .unwrap();
    let published = ["e", "a", "c"].map(|id| (id.to_owned(), 1));
    store.clear(published.to_vec()).await.unwrap();
    let listed: Vec<(String, i64)> = all_published(&store)
        .await
        .into_iter()
        .map(|seen| (seen.id, seen.revision))
        .collect();
    let wanted = [("a", 1), ("c", 1), ("e", 1), ("f", 2)];
    assert_eq!(
        listed,
        wanted.map(|(id, revision)| (id.to_owned(), revision))
    );
}

pub async fn an_aggregate_is_removed_only_as_it_was_seen<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let phantom = A::example("phantom", 1);
    let write = write_of(&phantom, 1, Some("key"));
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    must_write(&store, &A::example("other", 1), 1).await;
    let published = ["phantom", "other"].map(|id| (id.to_owned(), 1));
    store.clear(published.to_vec()).await.unwrap();
    let first = seen(&store, "phantom").await;

    // It has changed since, first with the event pending, then published.
    must_write(&store, &phantom.changed(2), 2).await;
    assert_eq!(store.remove(std::slice::from_ref(&first)).await.unwrap(), 0);
    store.clear(vec![("phantom".to_owned(), 2)]).await.unwrap();
    assert_eq!(store.remove(std::slice::from_ref(&first)).await.unwrap(), 0);
    assert_eq!(revision(&store, "phantom").await, 2);

    let second = seen(&store, "phantom").await;
    let absent = PublishedRow {
        id: "absent".to_owned(),
        ..second.clone()
    };
    assert_eq!(store.remove(&[]).await.unwrap(), 0);
    assert_eq!(store.remove(&[absent, second.clone()]).await.unwrap(), 1);
    assert!(get(&store, "phantom").await.is_none());
    assert!(answered(&store, "key").await.is_none());
    assert!(get(&store, "other").await.is_some());
    for fields in A::INDEXES {
        for group in [1, 2] {
            let request = PageRequest {
                filter: filter_like(fields, &A::example("x", group)),
                after: None,
                limit: 10,
            };
            let page = store.pages(&[request]).await.unwrap().remove(0);
            assert!(page.iter().all(|state| state.id() == "other"));
        }
    }
    assert_eq!(
        store.remove(std::slice::from_ref(&second)).await.unwrap(),
        0
    );

    // A new aggregate with that id and revision is not the one that was seen, though it looks the same.
    must_write(&store, &phantom, 3).await;
    assert_eq!(store.remove(&[first.clone(), second]).await.unwrap(), 0);
    store.clear(vec![("phantom".to_owned(), 1)]).await.unwrap();
    assert_eq!(store.remove(&[first]).await.unwrap(), 0);
    assert_eq!(revision(&store, "phantom").await, 1);
}

pub async fn an_aggregate_is_set_back_only_as_it_was_seen<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let told = A::example("1", 1);
    let ahead = told.changed(2).changed(2).changed(2);
    store.restore(std::slice::from_ref(&ahead)).await.unwrap();
    let first = seen(&store, "1").await;
    assert_eq!(first.revision, 4);

    // It has changed since, first with the event pending, then published.
    must_write(&store, &ahead.changed(2), 2).await;
    let back = [(first, told.clone())];
    assert_eq!(store.revert(&back).await.unwrap(), 0);
    store.clear(vec![("1".to_owned(), 5)]).await.unwrap();
    assert_eq!(store.revert(&back).await.unwrap(), 0);
    assert_eq!(revision(&store, "1").await, 5);

    let second = seen(&store, "1").await;
    let absent = PublishedRow {
        id: "absent".to_owned(),
        ..second.clone()
    };
    let back = [(absent, A::example("absent", 1)), (second, told.clone())];
    assert_eq!(store.revert(&[]).await.unwrap(), 0);
    // An aggregate that is gone is not created again.
    assert_eq!(store.revert(&back[1..]).await.unwrap(), 1);
    assert_eq!(get(&store, "1").await.unwrap().state, told);
    assert_eq!(store.revert(&back).await.unwrap(), 0);
    assert!(get(&store, "absent").await.is_none());
    for fields in A::INDEXES {
        for (group, wanted) in [(1, vec!["1"]), (2, vec![])] {
            let request = PageRequest {
                filter: filter_like(fields, &A::example("x", group)),
                after: None,
                limit: 10,
            };
            let page = store.pages(&[request]).await.unwrap().remove(0);
            assert_eq!(ids(&page), wanted);
        }
    }
    // Commands continue from there.
    must_write(&store, &told.changed(1), 9).await;
}
