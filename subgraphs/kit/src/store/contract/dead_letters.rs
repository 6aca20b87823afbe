//! The cases of [`DeadLetterStore`](crate::store::DeadLetterStore).

use chrono::DateTime;

use super::{Example, Fixture};
use crate::store::DeadLetter;

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
    }
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
        store.dead_letters(Some("replica"), 10).await.unwrap(),
        expected
    );
    assert_eq!(
        store.dead_letters(Some("replica"), 2).await.unwrap(),
        expected[..2]
    );
    assert_eq!(
        store.dead_letters(Some("audit"), 10).await.unwrap(),
        [other]
    );
    assert!(
        store
            .dead_letters(Some("nobody"), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.dead_letters(None, 10).await.unwrap().len(), 5);
    assert_eq!(store.dead_letters(None, 3).await.unwrap().len(), 3);
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
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), [first]);
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
    assert!(store.unpark("replica", "a", 0, 1).await.unwrap());
    assert!(!store.unpark("replica", "a", 0, 1).await.unwrap());
    assert_eq!(keys().await, ["k", "l"]);
    assert!(store.unpark("replica", "a", 0, 2).await.unwrap());
    assert_eq!(keys().await, ["l"]);
    assert_eq!(store.parked_keys("audit").await.unwrap(), ["m"]);
    assert_eq!(store.dead_letters(None, 10).await.unwrap().len(), 2);
}
