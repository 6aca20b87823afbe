//! The cases of [`AggregateStore`](tandem_event_path::store::AggregateStore) for single aggregates.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, future::join_all, stream};
use uuid::Uuid;

use super::{
    Example, Fixture,
    written::{Store, answered, at, get, must_write, outcome_of, request, revision, write_of},
};
use tandem_event_path::{
    outbox::Backlog,
    store::{Filter, KEPT_ANSWERS, Outcome, PageRequest, Write},
};

/// Instances of a service that use one store.
const INSTANCES: usize = 4;

pub async fn a_written_aggregate_is_read_back<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    assert!(get(&store, "1").await.is_none());
    let state = A::example("1", 1);
    let event = must_write(&store, &state, 1).await;
    let stored = get(&store, "1").await.unwrap();
    assert_eq!(stored.state, state);
    assert_eq!(stored.pending, [event]);
}

pub async fn a_change_is_read_back<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let state = A::example("1", 1);
    let first = must_write(&store, &state, 1).await;
    let changed = state.changed(1);
    let second = must_write(&store, &changed, 2).await;
    let stored = get(&store, "1").await.unwrap();
    assert_eq!(stored.state, changed);
    assert_eq!(stored.pending, [first, second]);
}

pub async fn a_stale_revision_is_refused<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let state = A::example("1", 1);
    must_write(&store, &state, 1).await;
    let changed = state.changed(1);
    must_write(&store, &changed, 2).await;
    let before = get(&store, "1").await.unwrap();

    let stale = write_of(&state.changed(2), 3, Some("key"));
    assert_eq!(store.write(&stale).await.unwrap(), Outcome::Stale);
    let ahead = write_of(&changed.changed(1).changed(2), 3, Some("key"));
    assert_eq!(store.write(&ahead).await.unwrap(), Outcome::Stale);

    let after = get(&store, "1").await.unwrap();
    assert_eq!(after.state, before.state);
    assert_eq!(after.pending, before.pending);
    assert!(
        answered(&store, "key").await.is_none(),
        "a refused write must not take its key"
    );
    let retried = write_of(&changed.changed(2), 4, Some("key"));
    assert_eq!(store.write(&retried).await.unwrap(), Outcome::Written);
}

pub async fn an_aggregate_is_created_once<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let state = A::example("1", 1);
    must_write(&store, &state, 1).await;
    let twin = write_of(&A::example("1", 2), 2, None);
    assert_eq!(store.write(&twin).await.unwrap(), Outcome::Stale);
    assert_eq!(get(&store, "1").await.unwrap().state, state);
}

pub async fn a_change_of_an_aggregate_that_is_not_there_is_refused<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    let change = write_of(&A::example("1", 1).changed(1), 1, Some("key"));
    assert_eq!(store.write(&change).await.unwrap(), Outcome::Stale);
    assert!(get(&store, "1").await.is_none());
    assert!(store.pending(at(10), None, 10).await.unwrap().is_empty());
    assert!(answered(&store, "key").await.is_none());
}

pub async fn reads_come_back_in_the_order_asked_for<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    for number in 0..20 {
        must_write(&store, &A::example(&format!("n{number}"), 1), 1).await;
    }
    for count in [3, 20] {
        let mut asked: Vec<String> = (0..count)
            .rev()
            .map(|number| format!("n{number}"))
            .collect();
        asked.insert(1, "absent".to_owned());
        asked.push("n0".to_owned());
        let answers = store.get_many(&asked).await.unwrap();
        assert_eq!(answers.len(), asked.len());
        for (id, answer) in asked.iter().zip(&answers) {
            let expected = (id != "absent").then_some(id.as_str());
            assert_eq!(answer.as_ref().map(|stored| stored.state.id()), expected);
        }
    }
    assert!(store.get_many(&[]).await.unwrap().is_empty());
}

pub async fn an_idempotency_key_is_taken_once<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let first = A::example("1", 1);
    assert_eq!(
        outcome_of(&store, &first, 1, Some("key")).await,
        Outcome::Written
    );
    let second = A::example("2", 1);
    assert_eq!(
        outcome_of(&store, &second, 2, Some("key")).await,
        Outcome::KeyTaken
    );
    assert!(get(&store, "2").await.is_none());
    assert_eq!(answered(&store, "key").await, Some(first));
    assert_eq!(
        outcome_of(&store, &second, 3, Some("other")).await,
        Outcome::Written
    );
    assert_eq!(answered(&store, "other").await, Some(second));
}

pub async fn an_idempotency_key_is_taken_once_on_the_same_aggregate<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    let first = A::example("1", 1);
    assert_eq!(
        outcome_of(&store, &first, 1, Some("key")).await,
        Outcome::Written
    );
    let second = first.changed(1);
    assert_eq!(
        outcome_of(&store, &second, 2, Some("key")).await,
        Outcome::KeyTaken
    );
    assert_eq!(revision(&store, "1").await, 1);
    assert_eq!(answered(&store, "key").await, Some(first));
}

pub async fn of_requests_racing_with_one_key_one_wins<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let racing = (0..16).map(|number| {
        let store = Arc::clone(&store);
        async move {
            store
                .write(&write_of(
                    &A::example(&format!("n{number}"), 1),
                    1,
                    Some("key"),
                ))
                .await
                .unwrap()
        }
    });
    let outcomes = join_all(racing).await;
    let winners: Vec<usize> = (0..16)
        .filter(|number| outcomes[*number] == Outcome::Written)
        .collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::KeyTaken)
            .count(),
        15
    );
    let answer = answered(&store, "key").await.unwrap();
    assert_eq!(answer.id(), format!("n{}", winners[0]));
    let all = PageRequest {
        filter: Filter::all(),
        after: None,
        limit: 100,
    };
    assert_eq!(store.pages(&[all]).await.unwrap()[0].len(), 1);
}

pub async fn the_first_answer_is_kept_and_then_forgotten<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let first = A::example("1", 1);
    let second = first.changed(1);
    let third = second.changed(2);
    assert!(answered(&store, "one").await.is_none());
    assert_eq!(
        outcome_of(&store, &first, 10, Some("one")).await,
        Outcome::Written
    );
    assert_eq!(
        outcome_of(&store, &second, 20, Some("two")).await,
        Outcome::Written
    );
    assert_eq!(
        outcome_of(&store, &third, 30, Some("three")).await,
        Outcome::Written
    );
    assert_eq!(answered(&store, "one").await, Some(first));
    assert_eq!(answered(&store, "two").await, Some(second));

    assert_eq!(store.forget_answers(at(10)).await.unwrap(), 0);
    assert_eq!(store.forget_answers(at(21)).await.unwrap(), 2);
    assert!(answered(&store, "one").await.is_none());
    assert!(answered(&store, "two").await.is_none());
    assert_eq!(answered(&store, "three").await, Some(third.clone()));
    assert_eq!(
        outcome_of(&store, &third.changed(1), 40, Some("one")).await,
        Outcome::Written
    );
    assert_eq!(store.forget_answers(at(100)).await.unwrap(), 2);
    assert_eq!(get(&store, "1").await.unwrap().pending.len(), 4);
}

pub async fn an_answer_is_kept_without_a_change<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let first = A::example("1", 1);
    let second = first.changed(1);
    let keep = async |key, state, time| {
        store
            .keep_answer(&request(key), state, at(time))
            .await
            .unwrap()
    };
    assert_eq!(keep("none", &first, 5).await, Outcome::Stale);
    must_write(&store, &first, 10).await;
    assert_eq!(keep("one", &first, 20).await, Outcome::Written);
    assert_eq!(keep("one", &first, 30).await, Outcome::KeyTaken);
    assert_eq!(get(&store, "1").await.unwrap().pending.len(), 1);
    assert_eq!(
        outcome_of(&store, &second, 40, Some("one")).await,
        Outcome::KeyTaken
    );
    must_write(&store, &second, 50).await;
    assert_eq!(keep("two", &first, 60).await, Outcome::Stale);
    must_write(&store, &A::example("2", 1), 70).await;
    assert_eq!(
        keep("one", &A::example("2", 1), 80).await,
        Outcome::KeyTaken
    );
    assert_eq!(answered(&store, "one").await, Some(first));
    assert_eq!(store.forget_answers(at(21)).await.unwrap(), 1);
    assert!(answered(&store, "one").await.is_none());
}

pub async fn answers_of_some_are_forgotten_and_their_keys_stay_used<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    let firsts = ["1", "2", "3"].map(|id| A::example(id, 1));
    for first in &firsts {
        let write = write_of(first, 10, Some(first.id()));
        assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
        must_write(&store, &first.changed(1), 20).await;
    }
    let ids = ["1", "3", "none"].map(str::to_owned);
    // The second time changes nothing.
    for _ in 0..2 {
        store.forget_answers_of(&ids).await.unwrap();
        // The state after the request is gone, so the request is answered with the current state.
        for id in ["1", "3"] {
            let present = get(&store, id).await.unwrap().state;
            assert_eq!(present.revision(), 2);
            assert_eq!(answered(&store, id).await, Some(present));
        }
        assert_eq!(answered(&store, "2").await.as_ref(), Some(&firsts[1]));
    }
    // The same request does not run a second time, on any aggregate.
    let again = write_of(&A::example("4", 1), 30, Some("1"));
    assert_eq!(store.write(&again).await.unwrap(), Outcome::KeyTaken);
    let present = get(&store, "1").await.unwrap().state;
    let again = write_of(&present.changed(3), 30, Some("1"));
    assert_eq!(store.write(&again).await.unwrap(), Outcome::KeyTaken);
    assert_eq!(store.forget_answers(at(100)).await.unwrap(), 3);
    assert!(answered(&store, "1").await.is_none());
}

pub async fn a_write_forgets_the_answers_before_it_and_their_keys_stay_used<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.aggregates().await;
    let first = A::example("1", 1);
    let second = first.changed(1);
    let third = second.changed(2);
    let other = A::example("2", 1);
    for (state, key) in [(&first, "one"), (&other, "other")] {
        let write = write_of(state, 10, Some(key));
        assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    }
    let kept = store
        .keep_answer(&request("two"), &first, at(15))
        .await
        .unwrap();
    assert_eq!(kept, Outcome::Written);
    let forgetting = |state: &A, recorded, key| Write {
        forget_answers: true,
        ..write_of(state, recorded, key)
    };
    // A refused write forgets nothing.
    let stale = store.write(&forgetting(&third, 20, None)).await.unwrap();
    assert_eq!(stale, Outcome::Stale);
    let taken = store.write(&forgetting(&second, 20, Some("other"))).await;
    assert_eq!(taken.unwrap(), Outcome::KeyTaken);
    let taken = store.write(&forgetting(&second, 20, Some("one"))).await;
    assert_eq!(taken.unwrap(), Outcome::KeyTaken);
    assert_eq!(answered(&store, "two").await, Some(first));

    let written = store.write(&forgetting(&second, 20, None)).await.unwrap();
    assert_eq!(written, Outcome::Written);
    assert_eq!(answered(&store, "one").await, Some(second.clone()));
    assert_eq!(answered(&store, "two").await, Some(second));
    assert_eq!(answered(&store, "other").await, Some(other));

    // The request's own answer is kept, and a used key stays used.
    let taken = store.write(&forgetting(&third, 30, Some("one"))).await;
    assert_eq!(taken.unwrap(), Outcome::KeyTaken);
    let written = store.write(&forgetting(&third, 30, Some("three"))).await;
    assert_eq!(written.unwrap(), Outcome::Written);
    let fourth = third.changed(3);
    must_write(&store, &fourth, 40).await;
    assert_eq!(answered(&store, "three").await, Some(third));
    assert_eq!(answered(&store, "one").await, Some(fourth.clone()));
    assert_eq!(store.forget_answers(at(100)).await.unwrap(), 4);
    let stored = get(&store, "1").await.unwrap();
    assert_eq!(stored.state, fourth);
    assert_eq!(stored.pending.len(), 4);
}

pub async fn of_many_answers_the_last_are_kept<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let mut state = A::example("1", 1);
    must_write(&store, &A::example("2", 1), 1).await;
    let keep = async |key: &str, state: &A, time| {
        let kept = store.keep_answer(&request(key), state, at(time)).await;
        assert_eq!(kept.unwrap(), Outcome::Written);
    };
    keep("other", &A::example("2", 1), 1).await;
    let most = i64::try_from(KEPT_ANSWERS).unwrap();
    must_write(&store, &state, 1).await;
    keep("n0", &state, 2).await;
    let others: Vec<i64> = (1..most).collect();
    // As many at once as there may be instances. Within an instance commands on one aggregate run one at a time. The
    // more instances write one document at once, the longer MongoDB takes until each one has succeeded.
    let kept = stream::iter(&others).map(|number| {
        let (store, state) = (&store, &state);
        async move {
            let key = request(&format!("n{number}"));
            let kept = store.keep_answer(&key, state, at(2 + *number)).await;
            kept.unwrap()
        }
    });
    let kept: Vec<Outcome> = kept.buffered(INSTANCES).collect().await;
    assert!(kept.iter().all(|outcome| *outcome == Outcome::Written));
    assert!(answered(&store, "n0").await.is_some());
    state = state.changed(2);
    let write = write_of(&state, most + 2, Some("last"));
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    assert!(answered(&store, "n0").await.is_none());
    assert!(answered(&store, "n999").await.is_some());
    assert_eq!(answered(&store, "last").await, Some(state));
    assert!(answered(&store, "other").await.is_some());
}

/// Adds `changes` revisions to the aggregate `hot`. Reads it again whenever another writer was faster.
async fn write_until_done<A: Example>(store: &Store<A>, changes: usize) -> Vec<Uuid> {
    let mut events = Vec::new();
    while events.len() < changes {
        let next = get(store, "hot")
            .await
            .map_or_else(|| A::example("hot", 1), |stored| stored.state.changed(1));
        let write = write_of(&next, next.revision(), None);
        let event = write.event.event.id;
        match store.write(&write).await.unwrap() {
            Outcome::Written => events.push(event),
            Outcome::Stale => {}
            Outcome::KeyTaken => panic!("no key was given"),
        }
    }
    events
}

/// Lets several handles on the same aggregates (of one or more instances) write to one aggregate at once. Each
/// acknowledged change must be exactly one revision, and each revision an acknowledged change.
pub async fn writers_race<A: Example>(handles: &[Store<A>], changes: usize) {
    let acknowledged = join_all(handles.iter().map(|store| {
        let store = Arc::clone(store);
        tokio::spawn(async move { write_until_done(&store, changes).await })
    }))
    .await;
    let acknowledged: BTreeSet<Uuid> = acknowledged.into_iter().flat_map(Result::unwrap).collect();
    let total = handles.len() * changes;
    assert_eq!(acknowledged.len(), total);
    let stored = get(&handles[0], "hot").await.unwrap();
    assert_eq!(stored.state.revision(), i64::try_from(total).unwrap());
    let revisions: Vec<i64> = stored.pending.iter().map(|event| event.revision).collect();
    assert_eq!(
        revisions,
        (1..=i64::try_from(total).unwrap()).collect::<Vec<_>>()
    );
    let kept: BTreeSet<Uuid> = stored.pending.iter().map(|event| event.event.id).collect();
    assert_eq!(kept, acknowledged);
}

pub async fn concurrent_writers_leave_no_gap_and_no_fork<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    writers_race(&vec![store; 6], 8).await;
}

pub async fn writes_and_clears_at_once_lose_nothing<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move { write_until_done(&store, 40).await }
    });
    // A relay that publishes and clears pending events while more are written.
    let mut published = Vec::new();
    while published.len() < 40 {
        let pending = store.pending(at(1_000), None, 10).await.unwrap();
        if let Some(last) = pending.last() {
            store
                .clear(vec![(last.key.clone(), last.revision)])
                .await
                .unwrap();
        }
        published.extend(pending.iter().map(|event| event.event.id));
        tokio::task::yield_now().await;
    }
    assert_eq!(published, writer.await.unwrap());
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
}

pub async fn many_aggregates_written_at_once_are_all_there<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let states: Vec<A> = (0..300)
        .map(|number| A::example(&format!("n{number}"), number % 5))
        .collect();
    let writes: Vec<Write<A>> = states
        .iter()
        .map(|state| write_of(state, 1, None))
        .collect();
    let outcomes = join_all(writes.iter().map(|write| store.write(write))).await;
    assert!(
        outcomes
            .into_iter()
            .all(|outcome| outcome.unwrap() == Outcome::Written)
    );
    let ids: Vec<String> = states.iter().map(|state| state.id().to_owned()).collect();
    let stored = store.get_many(&ids).await.unwrap();
    for (state, stored) in states.iter().zip(stored) {
        assert_eq!(*state, stored.unwrap().state);
    }
    assert_eq!(store.backlog().await.unwrap().events, 300);
}

pub async fn a_durable_write_is_there_after_reopening<A: Example>(fixture: &impl Fixture<A>) {
    let state = A::example("1", 1);
    let event = {
        let store = fixture.aggregates().await;
        let write = write_of(&state, 1, Some("key"));
        let event = write.event.clone();
        assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
        event
    };
    let store = fixture.aggregates().await;
    let stored = get(&store, "1").await.unwrap();
    assert_eq!(stored.state, state);
    assert_eq!(stored.pending, [event]);
    assert_eq!(answered(&store, "key").await, Some(state));
}

pub async fn a_store_that_is_there_answers<A: Example>(fixture: &impl Fixture<A>) {
    fixture.aggregates().await.ping().await.unwrap();
}
