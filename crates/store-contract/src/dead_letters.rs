//! The cases of [`DeadLetterStore`](tandem_event_path::store::DeadLetterStore).

use chrono::DateTime;

use super::{Example, Fixture};
use tandem_event_path::store::{DeadLetter, DeadLetterFilter, LetterId};

fn letter(consumer: &str, topic: &str, partition: i32, offset: i64, key: &str) -> DeadLetter {
    DeadLetter {
        consumer: consumer.to_owned(),
        topic: topic.to_owned(),
        partition,
        offset,
        key: key.to_owned(),
        reason: "it cannot be read".to_owned(),
        parked_at: DateTime::from_timestamp_millis(1_700_000_000_456).unwrap(),
        headers: vec![
            ("ce_id".to_owned(), b"1".to_vec()),
            ("odd".to_owned(), vec![0, 255]),
        ],
        payload: (offset % 2 == 0).then(|| vec![b'{', 0, 254]),
        is_cut: offset % 2 == 0,
    }
}

fn of(consumer: &str) -> DeadLetterFilter {
    DeadLetterFilter {
        consumer: Some(consumer.to_owned()),
        key: None,
    }
}

fn of_key(consumer: Option<&str>, key: &str) -> DeadLetterFilter {
    DeadLetterFilter {
        consumer: consumer.map(str::to_owned),
        key: Some(key.to_owned()),
    }
}

fn all() -> DeadLetterFilter {
    DeadLetterFilter::default()
}

pub async fn dead_letters_are_listed_in_order<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.dead_letters().await;
    let expected = [
        letter("replica", "a", 0, 2, "k1"),
        letter("replica", "a", 0, 10, "k2"),
        letter("replica", "a", 1, 1, "k1"),
        letter("replica", "b", 0, 0, "k1"),
    ];
    let other = letter("audit", "a", 0, 2, "k1");
    let mut parked: Vec<_> = expected.iter().rev().cloned().collect();
    parked.push(other.clone());
    store.park(parked).await.unwrap();
    assert_eq!(
        store.dead_letters(&of("replica"), None, 10).await.unwrap(),
        expected
    );
    assert_eq!(
        store.dead_letters(&of("replica"), None, 2).await.unwrap(),
        expected[..2]
    );
    assert_eq!(
        store.dead_letters(&of("audit"), None, 10).await.unwrap(),
        [other]
    );
    assert!(
        store
            .dead_letters(&of("nobody"), None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.dead_letters(&all(), None, 10).await.unwrap().len(), 5);
    assert_eq!(store.dead_letters(&all(), None, 3).await.unwrap().len(), 3);
}

pub async fn a_dead_letter_is_parked_once<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.dead_letters().await;
    let first = letter("replica", "a", 0, 1, "k");
    store.park(vec![first.clone()]).await.unwrap();
    let again = DeadLetter {
        reason: "another".to_owned(),
        ..first.clone()
    };
    store.park(vec![again.clone(), again]).await.unwrap();
    store.park(Vec::new()).await.unwrap();
    assert_eq!(store.dead_letters(&all(), None, 10).await.unwrap(), [first]);
}

pub async fn keys_are_parked_until_their_last_letter_is_gone<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.dead_letters().await;
    store
        .park(vec![
            letter("replica", "a", 0, 1, "k"),
            letter("replica", "a", 0, 2, "k"),
            letter("replica", "a", 0, 3, "l"),
            letter("audit", "a", 0, 1, "m"),
        ])
        .await
        .unwrap();
    store
        .park(vec![letter("replica", "a", 0, 2, "k")])
        .await
        .unwrap();
    let keys = async || {
        let mut keys = store.parked_keys("replica").await.unwrap();
        keys.sort();
        keys
    };
    assert_eq!(keys().await, ["k", "l"]);
    assert!(
        store
            .unpark(&letter("replica", "a", 0, 1, "").id())
            .await
            .unwrap()
    );
    assert!(
        !store
            .unpark(&letter("replica", "a", 0, 1, "").id())
            .await
            .unwrap()
    );
    assert_eq!(keys().await, ["k", "l"]);
    assert!(
        store
            .unpark(&letter("replica", "a", 0, 2, "").id())
            .await
            .unwrap()
    );
    assert_eq!(keys().await, ["l"]);
    assert_eq!(store.parked_keys("audit").await.unwrap(), ["m"]);
    assert_eq!(store.dead_letters(&all(), None, 10).await.unwrap().len(), 2);
}

pub async fn dead_letters_are_read_in_pages_of_what_is_asked_for<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let store = fixture.dead_letters().await;
    let mut expected = Vec::new();
    for consumer in ["audit", "replica"] {
        for offset in 0..700 {
            let key = if offset % 3 == 0 { "many" } else { "others" };
            expected.push(letter(
                consumer,
                "a",
                i32::try_from(offset % 2).unwrap(),
                offset,
                key,
            ));
        }
    }
    expected.sort_by_key(DeadLetter::id);
    store.park(expected.clone()).await.unwrap();
    for filter in [
        all(),
        of("replica"),
        of_key(None, "many"),
        of_key(Some("audit"), "many"),
    ] {
        let takes = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
        let wanted: Vec<DeadLetter> = expected
            .iter()
            .filter(|letter| {
                takes(&filter.consumer, &letter.consumer) && takes(&filter.key, &letter.key)
            })
            .cloned()
            .collect();
        let mut found: Vec<DeadLetter> = Vec::new();
        loop {
            let after = found.last().map(DeadLetter::id);
            let page = store
                .dead_letters(&filter, after.as_ref(), 97)
                .await
                .unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 97);
            found.extend(page);
        }
        assert_eq!(found, wanted);
        assert_eq!(store.count(&filter).await.unwrap(), wanted.len() as u64);
    }
    let last = expected.last().unwrap();
    assert_eq!(
        store.dead_letter(&last.id()).await.unwrap().as_ref(),
        Some(last)
    );
    let none = LetterId {
        offset: 9_999,
        ..last.id()
    };
    assert_eq!(store.dead_letter(&none).await.unwrap(), None);
}

pub async fn all_letters_of_a_key_are_removed_and_no_others<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.dead_letters().await;
    let kept = [
        letter("audit", "a", 0, 1, "k"),
        letter("replica", "a", 0, 3, "l"),
    ];
    let gone = [
        letter("replica", "a", 0, 1, "k"),
        letter("replica", "a", 1, 2, "k"),
    ];
    store.park([kept.clone(), gone].concat()).await.unwrap();
    assert_eq!(store.unpark_key("replica", "k").await.unwrap(), 2);
    assert_eq!(store.unpark_key("replica", "k").await.unwrap(), 0);
    assert_eq!(store.dead_letters(&all(), None, 10).await.unwrap(), kept);
    assert_eq!(store.parked_keys("replica").await.unwrap(), ["l"]);
}
