//! Events that are pending until they are published and cleared.

use tandem_event_path::outbox::Backlog;

use super::{
    Example, Fixture,
    written::{at, get, keys, must_write},
};

pub async fn pending_events_come_in_order_with_whole_keys<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    for id in ["b", "a", "c"] {
        let mut state = A::example(id, 1);
        must_write(&store, &state, 1).await;
        for step in 2..=3 {
            state = state.changed(1);
            must_write(&store, &state, step).await;
        }
    }
    let page = store.pending(at(100), None, 4).await.unwrap();
    assert_eq!(
        keys(&page),
        [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]
    );
    let page = store.pending(at(100), Some("b"), 4).await.unwrap();
    assert_eq!(keys(&page), [("c", 1), ("c", 2), ("c", 3)]);
    assert_eq!(store.pending(at(100), None, 1).await.unwrap().len(), 3);
    assert!(
        store
            .pending(at(100), Some("c"), 4)
            .await
            .unwrap()
            .is_empty()
    );
}

pub async fn pending_events_that_are_too_young_are_left<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    must_write(&store, &A::example("young", 1), 20).await;
    let old = A::example("old", 1);
    must_write(&store, &old, 10).await;
    must_write(&store, &old.changed(1), 30).await;
    assert!(store.pending(at(9), None, 10).await.unwrap().is_empty());
    // Events that follow an old event of the same key come with it, however young they are.
    assert_eq!(
        keys(&store.pending(at(10), None, 10).await.unwrap()),
        [("old", 1), ("old", 2)]
    );
    assert_eq!(
        keys(&store.pending(at(20), None, 10).await.unwrap()),
        [("old", 1), ("old", 2), ("young", 1)]
    );
    // When the old event is published, the next one counts by its own age.
    store.clear(vec![("old".to_owned(), 1)]).await.unwrap();
    assert_eq!(
        keys(&store.pending(at(20), None, 10).await.unwrap()),
        [("young", 1)]
    );
    assert_eq!(
        keys(&store.pending(at(30), None, 10).await.unwrap()),
        [("old", 2), ("young", 1)]
    );
}

pub async fn clearing_forgets_up_to_a_revision<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let mut state = A::example("a", 1);
    must_write(&store, &state, 1).await;
    for step in 2..=5 {
        state = state.changed(1);
        must_write(&store, &state, step).await;
    }
    must_write(&store, &A::example("b", 1), 1).await;
    store
        .clear(vec![("a".to_owned(), 3), ("absent".to_owned(), 7)])
        .await
        .unwrap();
    assert_eq!(
        keys(&store.pending(at(100), None, 10).await.unwrap()),
        [("a", 4), ("a", 5), ("b", 1)]
    );
    assert_eq!(
        keys(&get(&store, "a").await.unwrap().pending),
        [("a", 4), ("a", 5)]
    );
    // Clearing again, or up to an older revision, changes nothing.
    store
        .clear(vec![("a".to_owned(), 3), ("a".to_owned(), 2)])
        .await
        .unwrap();
    assert_eq!(
        keys(&get(&store, "a").await.unwrap().pending),
        [("a", 4), ("a", 5)]
    );
    store
        .clear(vec![("a".to_owned(), 5), ("b".to_owned(), 1)])
        .await
        .unwrap();
    assert!(store.pending(at(100), None, 10).await.unwrap().is_empty());
    let stored = get(&store, "a").await.unwrap();
    assert_eq!(stored.state, state);
    assert!(stored.pending.is_empty());
    must_write(&store, &state.changed(1), 6).await;
    assert_eq!(
        keys(&store.pending(at(100), None, 10).await.unwrap()),
        [("a", 6)]
    );
}

pub async fn the_backlog_is_counted<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    let state = A::example("a", 1);
    must_write(&store, &A::example("b", 1), 20).await;
    must_write(&store, &state, 10).await;
    must_write(&store, &state.changed(1), 30).await;
    assert_eq!(
        store.backlog().await.unwrap(),
        Backlog {
            events: 3,
            oldest: Some(at(10))
        }
    );
    store.clear(vec![("a".to_owned(), 1)]).await.unwrap();
    assert_eq!(
        store.backlog().await.unwrap(),
        Backlog {
            events: 2,
            oldest: Some(at(20))
        }
    );
    store
        .clear(vec![("b".to_owned(), 1), ("a".to_owned(), 2)])
        .await
        .unwrap();
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
}
