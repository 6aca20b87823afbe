#![allow(clippy::unwrap_used)]
use futures::StreamExt;

use super::share::{MOST_BYTES, MOST_OF_ALL};
use super::*;
use crate::graphql::document::Documents;
use crate::graphql::document_limits::DocumentLimits;
use crate::graphql::error::Refused;
use crate::graphql::schema::GraphSchema;
use crate::graphql::test_support::documents;
use crate::graphql::treatment::Treatment;

fn operation() -> Chosen {
    let schema =
        GraphSchema::from_sdl(include_str!("../../../../../schema/supergraph.graphql")).unwrap();
    Documents::new(
        Some(schema),
        DocumentLimits::default(),
        Treatment::default(),
    )
    .operation("subscription{u:orderUpdated{at:cursor}}", None)
    .unwrap()
}

fn event(cursor: usize, padding: usize) -> Bytes {
    format!(
        r#"{{"data":{{"u":{{"at":"{cursor}"}}}},"x":"{}"}}"#,
        "x".repeat(padding)
    )
    .into()
}

async fn rest(receiver: &mut Receiver) -> (usize, Option<RequestError>) {
    let mut count = 0;
    loop {
        match receiver.next().await.unwrap() {
            Event::Next(_) => count += 1,
            Event::End(error) => return (count, error),
            Event::Failed(errors) => panic!("{errors}"),
        }
    }
}

/// An upstream that counts how often it was polled.
fn upstream(chunks: &[&'static str], asked: &Arc<AtomicUsize>) -> Body {
    let asked = Arc::clone(asked);
    let chunks: Vec<&'static str> = chunks.to_vec();
    Body::from_stream(futures::stream::iter(chunks).map(move |chunk| {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk.as_bytes()))
    }))
}

#[tokio::test]
async fn the_first_event_alone_warns_of_a_consistency_token_that_is_none() {
    let (sender, receiver) = queue(&Held::default(), operation(), None);
    let mut receiver = receiver.warning(Some(Ignored));
    for cursor in 0..2 {
        assert!(sender.put(event(cursor, 0)));
    }
    let Some(Event::Next(first)) = receiver.next().await else {
        panic!("no event");
    };
    let first: serde_json::Value = serde_json::from_slice(&first).unwrap();
    assert_eq!(first["data"]["u"]["at"], "0");
    assert!(first["extensions"]["warnings"][0].is_string(), "{first}");
    assert_eq!(receiver.next().await, Some(Event::Next(event(1, 0))));
}

#[tokio::test]
async fn an_upstream_that_waits_is_read_at_the_clients_pace_and_its_end_is_told_as_it_was() {
    const NEXT: &str = "event: next\ndata: {\"data\":{\"u\":{\"at\":\"5\"}}}\n\n";
    let asked = Arc::new(AtomicUsize::new(0));
    let complete = [NEXT, NEXT, "event: complete\ndata: \n\n"];
    for (chunks, code) in [
        (&complete[..], None),
        (&complete[..2], Some(Code::Unavailable)),
    ] {
        asked.store(0, Ordering::Relaxed);
        let body = upstream(chunks, &asked);
        let mut receiver = Receiver::of_upstream(body, operation(), None);
        assert!(matches!(receiver.next().await, Some(Event::Next(_))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let (got, error) = rest(&mut receiver).await;
        assert_eq!((got, error.as_ref().map(RequestError::code)), (1, code));
        if let Some(error) = error {
            let refused: Refused = error.into();
            assert_eq!(refused.errors()[0]["extensions"]["cursor"], "5");
        }
        assert_eq!(receiver.next().await, None);
    }
}

#[tokio::test]
async fn who_reads_in_time_gets_all_and_an_end() {
    let held = Held::default();
    let (sender, mut receiver) = queue(&held, operation(), None);
    for number in 0..100 {
        assert!(sender.put(event(number, 10)));
    }
    sender.complete();
    drop(sender);
    assert_eq!(rest(&mut receiver).await, (100, None));
    assert_eq!(receiver.next().await, None);
    assert_eq!(held.0.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_token_however_fast_events_come_and_says_where_to_go_on() {
    for is_busy in [false, true] {
        let ends = Instant::now() + Duration::from_secs(60);
        let (sender, mut receiver) = queue(&Held::default(), operation(), Some(ends));
        assert!(sender.put(event(1, 0)));
        assert_eq!(receiver.next().await, Some(Event::Next(event(1, 0))));
        if is_busy {
            tokio::time::advance(Duration::from_secs(61)).await;
            assert!(sender.put(event(2, 0)));
        }
        let Some(Event::End(Some(error))) = receiver.next().await else {
            panic!("it did not end with an error");
        };
        assert_eq!(error.code(), Code::Unauthenticated);
        let refused: Refused = error.into();
        assert_eq!(refused.errors()[0]["extensions"]["cursor"], "1");
        assert_eq!(receiver.next().await, None);
    }
}

#[tokio::test]
async fn what_breaks_off_never_looks_complete_and_says_where_to_go_on() {
    let (sender, mut receiver) = queue(&Held::default(), operation(), None);
    assert!(sender.put(event(7, 0)));
    drop(sender);
    let (got, error) = rest(&mut receiver).await;
    let error = error.unwrap();
    assert_eq!((got, error.code()), (1, Code::Unavailable));
    let refused: Refused = error.into();
    assert_eq!(refused.errors()[0]["extensions"]["cursor"], "7");
}

#[tokio::test]
async fn errors_that_upstream_ends_with_end_it_and_others_do_not() {
    let errors = Bytes::from(r#"{"errors":[{"message":"x","extensions":{"code":"UNAVAILABLE"}}]}"#);
    let (sender, mut receiver) = queue(&Held::default(), operation(), None);
    for one in [event(1, 0), errors.clone(), event(2, 0), errors.clone()] {
        assert!(sender.put(one));
    }
    sender.complete();
    drop(sender);
    for one in [event(1, 0), errors, event(2, 0)] {
        assert_eq!(receiver.next().await, Some(Event::Next(one)));
    }
    let Some(Event::Failed(errors)) = receiver.next().await else {
        panic!("it did not end with errors");
    };
    let errors: serde_json::Value = serde_json::from_str(&errors).unwrap();
    assert_eq!(errors[0]["extensions"]["cursor"], "2");
    assert_eq!(receiver.next().await, None);
}

#[tokio::test]
async fn who_reads_too_slowly_learns_where_to_go_on() {
    for (padding, most) in [(0, MOST_EVENTS), (MOST_BYTES / 10, 10)] {
        let (sender, mut receiver) = queue(&Held::default(), operation(), None);
        let put = (0..2 * MOST_EVENTS)
            .take_while(|number| sender.put(event(*number, padding)))
            .count();
        assert!(put <= most && put >= most - 1);
        drop(sender);
        let (got, error) = rest(&mut receiver).await;
        assert_eq!(got, put);
        let error = error.unwrap();
        assert_eq!(error.code(), Code::SubscriptionLagged);
        let refused: Refused = error.into();
        assert_eq!(
            refused.errors()[0]["extensions"]["cursor"],
            (put - 1).to_string()
        );
    }
}

#[tokio::test]
async fn what_is_held_for_all_has_a_bound_and_is_given_back() {
    let held = Held::default();
    let mut open = Vec::new();
    while held.0.load(Ordering::Relaxed) < MOST_OF_ALL {
        let (sender, receiver) = queue(&held, operation(), None);
        assert!(sender.put(event(0, MOST_BYTES / 2)));
        sender.put(event(1, MOST_BYTES / 4));
        open.push((sender, receiver));
    }
    let (sender, _receiver) = queue(&held, operation(), None);
    assert!(sender.put(event(0, 10)));
    assert!(!sender.put(event(1, 10)));
    open.clear();
    assert!(held.0.load(Ordering::Relaxed) < 1_000);
}

#[tokio::test]
async fn an_event_has_nothing_that_its_client_did_not_ask_for() {
    let document = "subscription($s:Boolean!){orderUpdated{order{id@skip(if:$s)}}}";
    let operation = documents(true).operation(document, None).unwrap();
    let (sender, mut receiver) = queue(&Held::default(), operation, None);
    for event in [
        r#"{"data":{"orderUpdated":{"order":{"tandemSelectionFiller":"Order"}}}}"#,
        r#"{"errors":[{"message":"m","locations":[{"line":1,"column":38}]}]}"#,
    ] {
        assert!(sender.put(Bytes::from_static(event.as_bytes())));
    }
    sender.complete();
    drop(sender);
    let Some(Event::Next(event)) = receiver.next().await else {
        panic!("there is an event");
    };
    assert_eq!(event, r#"{"data":{"orderUpdated":{"order":{}}}}"#);
    let Some(Event::Failed(errors)) = receiver.next().await else {
        panic!("there are errors");
    };
    assert_eq!(errors, r#"[{"message":"m"}]"#);
}
