//! How the cases write an aggregate and read it back.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Example;
use tandem_event_path::{
    outbox::{Companion, PendingEvent},
    store::{AggregateStore, Outcome, Stored, Write},
};
use tandem_model::{event::CloudEvent, request_key::RequestKey};

pub(super) type Store<A> = Arc<dyn AggregateStore<A>>;

/// A time that is this many milliseconds after the start of the run. It must not be long ago: MongoDB removes first
/// answers older than a day by itself, once a minute, and a case that takes longer under load would notice.
pub(super) fn at(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(*BEGUN + milliseconds).unwrap()
}

/// The start of this run, in milliseconds of the epoch.
static BEGUN: LazyLock<i64> = LazyLock::new(|| Utc::now().timestamp_millis());

/// The value of `recorded` in [`write_of`] that means now.
pub fn recorded_now() -> i64 {
    Utc::now().timestamp_millis() - *BEGUN
}

/// The write that changes the revision before to `state`, recorded at `at(recorded)`.
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

/// Writes [`write_of`] these arguments, and returns the outcome.
pub(super) async fn outcome_of<A: Example>(
    store: &Store<A>,
    state: &A,
    recorded: i64,
    key: Option<&str>,
) -> Outcome {
    store.write(&write_of(state, recorded, key)).await.unwrap()
}

/// A request with this key. Its input contains the key's name.
pub(super) fn request(key: &str) -> RequestKey {
    RequestKey {
        key: key.to_owned(),
        before: None,
        input: format!("input of {key}"),
    }
}

pub(super) async fn answered<A: Example>(store: &Store<A>, key: &str) -> Option<A> {
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

pub(super) async fn revision<A: Example>(store: &Store<A>, id: &str) -> i64 {
    get(store, id)
        .await
        .map_or(0, |stored| stored.state.revision())
}

pub(super) fn ids<A: Example>(page: &[A]) -> Vec<&str> {
    page.iter().map(A::id).collect()
}

pub(super) fn keys(events: &[PendingEvent]) -> Vec<(&str, i64)> {
    events
        .iter()
        .map(|event| (event.key.as_str(), event.revision))
        .collect()
}
