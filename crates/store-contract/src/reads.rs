//! Concurrent reads, which an adapter may combine.

use std::{sync::Arc, time::Duration};

use tandem_event_path::store::AggregateStore;

use super::{
    Example, Fixture,
    written::{get, must_write},
};

const READERS: usize = 64;
const AGGREGATES: usize = 40;

fn id(number: usize) -> String {
    format!("read-{:02}", number % AGGREGATES)
}

pub async fn many_readers_at_once_each_get_what_they_asked_for<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    let written: Vec<A> = (0..AGGREGATES).map(|one| A::example(&id(one), 1)).collect();
    for state in &written {
        must_write(&store, state, 1).await;
    }
    let written = Arc::new(written);
    let reader = |reader: usize| {
        let (store, written) = (Arc::clone(&store), Arc::clone(&written));
        tokio::spawn(async move {
            for round in 0..20 {
                // The lists have different lengths, and contain missing and repeated ids.
                let mut ids: Vec<String> = (0..=round % 5).map(|one| id(reader + one)).collect();
                ids.push("nobody".to_owned());
                ids.push(id(reader));
                let found = store.get_many(&ids).await.unwrap();
                let found: Vec<Option<A>> = found
                    .into_iter()
                    .map(|stored| stored.map(|stored| stored.state))
                    .collect();
                let right: Vec<Option<A>> = ids
                    .iter()
                    .map(|id| written.iter().find(|state| state.id() == id).cloned())
                    .collect();
                assert_eq!(found, right);
            }
        })
    };
    let readers: Vec<_> = (0..READERS).map(reader).collect();
    for reader in readers {
        reader.await.unwrap();
    }
}

pub async fn a_reader_sees_what_was_written_before_it_asked_beside_many_others<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    let mut state = A::example("1", 1);
    must_write(&store, &state, 1).await;
    let others: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(read_for_ever(Arc::clone(&store))))
        .collect();
    for revision in 2..30 {
        state = state.changed(1);
        must_write(&store, &state, revision).await;
        assert_eq!(get(&store, "1").await.unwrap().state, state);
    }
    for other in others {
        other.abort();
    }
}

async fn read_for_ever<A: Example>(store: Arc<dyn AggregateStore<A>>) {
    loop {
        store.get_many(&["1".to_owned()]).await.unwrap();
        // A store that reads from memory never waits.
        tokio::task::yield_now().await;
    }
}

pub async fn readers_who_go_away_leave_the_others_their_answers<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    must_write(&store, &A::example("1", 1), 1).await;
    for round in 0..20 {
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.get_many(&["1".to_owned()]).await })
            })
            .collect();
        tokio::task::yield_now().await;
        for (number, reader) in readers.into_iter().enumerate() {
            if number % 2 == round % 2 {
                reader.abort();
            } else {
                let found = tokio::time::timeout(Duration::from_secs(10), reader).await;
                assert!(found.unwrap().unwrap().unwrap()[0].is_some());
            }
        }
    }
}
