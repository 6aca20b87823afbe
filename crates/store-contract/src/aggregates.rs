//! The cases of [`AggregateStore`] and [`Outbox`](tandem_event_path::outbox::Outbox).

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use chrono::{DateTime, Utc};
use futures::{StreamExt, future::join_all, stream};
use uuid::Uuid;

use super::{Example, Fixture};
use tandem_event_path::{
    outbox::{Backlog, Companion, PendingEvent},
    store::{
        AggregateStore, Filter, KEPT_ANSWERS, Outcome, PageRequest, PublishedRow, SpanRequest,
        Stored, Write,
    },
};
use tandem_model::{event::CloudEvent, request_key::RequestKey};

/// Instances of a service that work on one store.
const INSTANCES: usize = 4;

type Store<A> = Arc<dyn AggregateStore<A>>;

/// A time of this run, so many milliseconds on. Not one of long ago: MongoDB removes first answers that are older than a day by
/// itself, once a minute, which a case that takes longer under load would notice.
fn at(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(*BEGUN + milliseconds).unwrap()
}

/// When this run began, in milliseconds of the epoch.
static BEGUN: LazyLock<i64> = LazyLock::new(|| Utc::now().timestamp_millis());

/// What [`write_of`] takes for what is recorded now.
pub fn recorded_now() -> i64 {
    Utc::now().timestamp_millis() - *BEGUN
}

/// The write that makes `state` of the revision before it, recorded at `at(recorded)`.
pub fn write_of<A: Example>(state: &A, recorded: i64, key: Option<&str>) -> Write<A> {
    let event = CloudEvent {
        id: Uuid::now_v7(),
        source: "/contract".to_owned(),
        kind: "Changed".to_owned(),
        subject: state.id().to_owned(),
        time: at(recorded),
        data_schema: "urn:tandem:contract:1".to_owned(),
        traceparent: (recorded % 2 == 0)
            .then(|| "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        data: format!("{{ \"revision\" :{} }}", state.revision()),
    };
    Write {
        expected_revision: state.revision() - 1,
        event: PendingEvent {
            key: state.id().to_owned(),
            revision: state.revision(),
            recorded_at: at(recorded),
            event,
            companions: (recorded % 2 == 0)
                .then(|| Companion {
                    topic: "contract.keys".to_owned(),
                    key: state.id().to_owned(),
                    payload: (recorded % 4 == 0).then(|| "{}".to_owned()),
                })
                .into_iter()
                .collect(),
        },
        state: state.clone(),
        idempotency_key: key.map(request),
        forget_answers: false,
    }
}

/// A request with this key, whose input is the key's own name.
fn request(key: &str) -> RequestKey {
    RequestKey {
        key: key.to_owned(),
        before: None,
        input: format!("input of {key}"),
    }
}

async fn answered<A: Example>(store: &Store<A>, key: &str) -> Option<A> {
    let first = store.first_answer(&request(key)).await.unwrap()?;
    assert_eq!(first.input, Some(request(key).input));
    Some(first.state)
}

pub(super) async fn must_write<A: Example>(
    store: &Store<A>,
    state: &A,
    recorded: i64,
) -> PendingEvent {
    let write = write_of(state, recorded, None);
    let event = write.event.clone();
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    event
}

pub(super) async fn get<A: Example>(store: &Store<A>, id: &str) -> Option<Stored<A>> {
    let mut answers = store.get_many(&[id.to_owned()]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn revision<A: Example>(store: &Store<A>, id: &str) -> i64 {
    get(store, id)
        .await
        .map_or(0, |stored| stored.state.revision())
}

fn ids<A: Example>(page: &[A]) -> Vec<&str> {
    page.iter().map(A::id).collect()
}

fn keys(events: &[PendingEvent]) -> Vec<(&str, i64)> {
    events
        .iter()
        .map(|event| (event.key.as_str(), event.revision))
        .collect()
}

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
        store
            .write(&write_of(&first, 1, Some("key")))
            .await
            .unwrap(),
        Outcome::Written
    );
    let second = A::example("2", 1);
    assert_eq!(
        store
            .write(&write_of(&second, 2, Some("key")))
            .await
            .unwrap(),
        Outcome::KeyTaken
    );
    assert!(get(&store, "2").await.is_none());
    assert_eq!(answered(&store, "key").await, Some(first));
    assert_eq!(
        store
            .write(&write_of(&second, 3, Some("other")))
            .await
            .unwrap(),
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
        store
            .write(&write_of(&first, 1, Some("key")))
            .await
            .unwrap(),
        Outcome::Written
    );
    let second = first.changed(1);
    assert_eq!(
        store
            .write(&write_of(&second, 2, Some("key")))
            .await
            .unwrap(),
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
        store
            .write(&write_of(&first, 10, Some("one")))
            .await
            .unwrap(),
        Outcome::Written
    );
    assert_eq!(
        store
            .write(&write_of(&second, 20, Some("two")))
            .await
            .unwrap(),
        Outcome::Written
    );
    assert_eq!(
        store
            .write(&write_of(&third, 30, Some("three")))
            .await
            .unwrap(),
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
        store
            .write(&write_of(&third.changed(1), 40, Some("one")))
            .await
            .unwrap(),
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
        store
            .write(&write_of(&second, 40, Some("one")))
            .await
            .unwrap(),
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
    // Again, it changes nothing.
    for _ in 0..2 {
        store.forget_answers_of(&ids).await.unwrap();
        // The state that the request made is gone: it is answered with the present one.
        for id in ["1", "3"] {
            let present = get(&store, id).await.unwrap().state;
            assert_eq!(present.revision(), 2);
            assert_eq!(answered(&store, id).await, Some(present));
        }
        assert_eq!(answered(&store, "2").await.as_ref(), Some(&firsts[1]));
    }
    // The same request is not carried out a second time, on whatever aggregate.
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
    // What is refused forgets nothing.
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

    // The request's own answer is kept, and a key that was used stays used.
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
    // As many at once as there may be instances: commands on one aggregate take turns within each, and the more of them write one
    // document at once, the longer MongoDB takes to let each have its turn.
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

pub async fn all_are_listed_page_by_page<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    for id in ["b", "a-1", "B", "a", "a_1", "10", "9"] {
        must_write(&store, &A::example(id, 1), 1).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let request = PageRequest {
            filter: Filter::all(),
            after: after.clone(),
            limit: 3,
        };
        let page = store.pages(&[request]).await.unwrap().remove(0);
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.id().to_owned());
        seen.extend(page.iter().map(|state| state.id().to_owned()));
    }
    assert_eq!(seen, ["10", "9", "B", "a", "a-1", "a_1", "b"]);
    let none = PageRequest {
        filter: Filter::all(),
        after: None,
        limit: 0,
    };
    assert_eq!(store.pages(&[none]).await.unwrap(), [vec![]]);
}

fn filter_like<A: Example>(fields: &'static [&'static str], example: &A) -> Filter {
    Filter(
        fields
            .iter()
            .map(|field| (*field, example.field(field).unwrap()))
            .collect(),
    )
}

pub async fn a_list_holds_what_its_fields_say<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    for (id, group) in [("c", 1), ("a", 1), ("b", 2), ("d", 11)] {
        must_write(&store, &A::example(id, group), 1).await;
    }
    for fields in A::INDEXES {
        let list = async |group: u32, after: Option<&str>| {
            let filter = filter_like(fields, &A::example("x", group));
            let request = PageRequest {
                filter,
                after: after.map(str::to_owned),
                limit: 10,
            };
            store.pages(&[request]).await.unwrap().remove(0)
        };
        assert_eq!(ids(&list(1, None).await), ["a", "c"]);
        assert_eq!(ids(&list(1, Some("a")).await), ["c"]);
        assert_eq!(ids(&list(1, Some("b")).await), ["c"]);
        assert_eq!(ids(&list(2, None).await), ["b"]);
        assert!(list(3, None).await.is_empty());
    }
    // A change moves it from one list to another.
    must_write(&store, &A::example("a", 1).changed(2), 2).await;
    for fields in A::INDEXES {
        for (group, expected) in [(1, vec!["c"]), (2, vec!["a", "b"]), (11, vec!["d"])] {
            let filter = filter_like(fields, &A::example("x", group));
            let page = store
                .pages(&[PageRequest {
                    filter,
                    after: None,
                    limit: 10,
                }])
                .await
                .unwrap()
                .remove(0);
            assert_eq!(ids(&page), expected);
        }
    }
}

pub async fn many_pages_come_from_one_read<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    for number in 0..30 {
        must_write(&store, &A::example(&format!("n{number:02}"), number % 3), 1).await;
    }
    assert!(store.pages(&[]).await.unwrap().is_empty());
    let requests: Vec<PageRequest> = (0..100)
        .map(|number| {
            let filter = match A::INDEXES.first() {
                Some(fields) => filter_like(fields, &A::example("x", number % 4)),
                None => Filter::all(),
            };
            PageRequest {
                filter,
                after: Some("n09".to_owned()),
                limit: number as usize % 5,
            }
        })
        .collect();
    let pages = store.pages(&requests).await.unwrap();
    assert_eq!(pages.len(), 100);
    for (request, page) in requests.iter().zip(&pages) {
        let alone = store
            .pages(std::slice::from_ref(request))
            .await
            .unwrap()
            .remove(0);
        assert_eq!(*page, alone);
        assert!(page.len() <= request.limit);
        assert!(page.iter().all(|state| state.id() > "n09"));
    }
    assert!(pages.iter().any(|page| page.len() == 4));
}

pub async fn lists_side_by_side_come_from_one_read<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let states = [("f", 2), ("a", 1), ("c", 3), ("b", 2), ("e", 1), ("d", 11)];
    let states = states.map(|(id, group)| A::example(id, group));
    for state in &states {
        must_write(&store, state, 1).await;
    }
    let alone = A::INDEXES.iter().filter_map(|fields| match fields {
        [field] => Some(*field),
        _ => None,
    });
    for field in alone {
        let place = |state: &A| (state.field(field).unwrap(), state.id().to_owned());
        let mut places: Vec<(String, String)> = states.iter().map(place).collect();
        places.sort();
        let whole = async |first: &str, last: &str, mut after: Option<(String, String)>, limit| {
            let mut seen = Vec::new();
            loop {
                let request = SpanRequest {
                    field,
                    first: first.to_owned(),
                    last: last.to_owned(),
                    after,
                    limit,
                };
                let span = store.span(&request).await.unwrap();
                assert!(span.found.len() <= limit);
                assert!(!span.more || !span.found.is_empty());
                after = span.found.last().map(place);
                seen.extend(span.found.iter().map(place));
                if !span.more {
                    break seen;
                }
            }
        };
        let afters = || places.iter().cloned().map(Some).chain([None]);
        for (first, last) in [(0, 5), (0, 2), (2, 3), (3, 3), (5, 0)] {
            let (first, last) = (places[first].0.as_str(), places[last].0.as_str());
            // Whatever the place, what is behind it comes from the same span.
            for after in afters() {
                let expected: Vec<_> = places
                    .iter()
                    .filter(|place| place.0.as_str() >= first && place.0.as_str() <= last)
                    .filter(|place| after.as_ref().is_none_or(|after| *place > after))
                    .cloned()
                    .collect();
                for limit in [1, 2, 10] {
                    let seen = whole(first, last, after.clone(), limit).await;
                    assert_eq!(seen, expected, "{first}..={last} after {after:?}");
                }
            }
        }
    }
}

pub async fn a_list_that_is_not_kept_is_an_error<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let filter = Filter(vec![("no such field", "x".to_owned())]);
    let error = store
        .pages(&[PageRequest {
            filter,
            after: None,
            limit: 1,
        }])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no such field"), "{error}");
    let request = SpanRequest {
        field: "nor this one",
        first: "a".to_owned(),
        last: "z".to_owned(),
        after: None,
        limit: 1,
    };
    let error = store.span(&request).await.unwrap_err();
    assert!(error.to_string().contains("nor this one"), "{error}");
}

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
    // What is behind an old event comes with it, however young.
    assert_eq!(
        keys(&store.pending(at(10), None, 10).await.unwrap()),
        [("old", 1), ("old", 2)]
    );
    assert_eq!(
        keys(&store.pending(at(20), None, 10).await.unwrap()),
        [("old", 1), ("old", 2), ("young", 1)]
    );
    // Once the old one is published the other is as old as it is.
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
    // Cleared again, and by one that knew less: nothing changes.
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

/// Writers that each add `changes` revisions to the aggregate `hot`, reading again whenever another was faster.
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

/// Puts several handles on the same aggregates (of one instance or of more) to one aggregate at once: each acknowledged
/// change must be one revision, and no revision may be without one.
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
    // A relay that takes what is pending and clears it, while more is written.
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
    // Life goes on from the restored revisions.
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
    // Of each three one is there already, one is there with other content of the same revision, and one is missing.
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

/// All that is settled, read in pages of two.
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

    // Changed since: first with the event pending, then published.
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

    // Somebody makes one of that id and revision: it is not what was seen, though it looks the same.
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

    // Changed since: first with the event pending, then published.
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
    // One that is gone is not made again.
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
    // Life goes on from there.
    must_write(&store, &told.changed(1), 9).await;
}

pub async fn a_store_that_is_there_answers<A: Example>(fixture: &impl Fixture<A>) {
    fixture.aggregates().await.ping().await.unwrap();
}
