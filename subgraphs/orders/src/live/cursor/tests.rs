#![allow(clippy::unwrap_used)]
//! Which cursors are accepted and refused, and how they are encoded.

use async_trait::async_trait;

use super::*;
use crate::live::{
    Interest,
    log::{Attention, LogAway, LogReader},
};

/// The log of this system, or of an unknown one if `None`.
struct LogOf(Option<&'static str>);

#[async_trait]
impl Log for LogOf {
    async fn ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, LogAway> {
        Err(LogAway("as the test wants".to_owned()))
    }

    fn system(&self) -> Option<u32> {
        self.0.map(in_short)
    }

    async fn open(&self, _: &Offsets, _: Attention) -> Result<Box<dyn LogReader>, LogAway> {
        Err(LogAway("as the test wants".to_owned()))
    }
}

const OURS: LogOf = LogOf(Some("ours"));
const ANOTHER: LogOf = LogOf(Some("another"));
const NOBODYS: LogOf = LogOf(None);

fn seen() -> Offsets {
    Offsets::from([(0, 5), (1, 7)])
}

fn is_refused<T>(taken: Result<T, LiveError>) -> bool {
    matches!(taken, Err(LiveError::BadCursor(_)))
}

#[test]
fn a_cursor_of_another_system_is_refused_and_one_that_names_none_is_taken() {
    let written = Place::default().at(seen()).encode(&OURS);
    let place = Place::decode(&written).unwrap();
    assert_eq!(*place.seen, seen());
    assert!(place.check(&OURS).is_ok() && place.check(&NOBODYS).is_ok());
    assert!(is_refused(place.check(&ANOTHER)));
    assert_eq!(place.encode(&NOBODYS), written, "what is known stays known");
    let former: Arc<str> = Cursor(seen()).encode().into();
    let place = Place::decode(&former).unwrap();
    assert_eq!(place, Place::default().at(seen()));
    assert!(place.check(&ANOTHER).is_ok());
    assert_eq!(place.encode(&NOBODYS), former);
    let of_customer = CustomerPlace {
        seen: seen(),
        ..CustomerPlace::of("1")
    };
    let of_customer = of_customer.encode(&OURS);
    let place = CustomerPlace::decode_of(&of_customer, "1").unwrap();
    assert!(place.check(&OURS).is_ok() && is_refused(place.check(&ANOTHER)));
}

#[test]
fn a_cursor_of_a_feed_with_another_filter_is_refused_and_one_that_names_none_is_taken() {
    let interest = |customer: Option<&str>, order: Option<&str>| Interest {
        customer_id: customer.map(str::to_owned),
        order_id: order.map(str::to_owned),
    };
    let filters = [
        interest(None, None),
        interest(Some("1"), None),
        interest(Some("2"), None),
        interest(None, Some("1")),
        interest(Some("1"), Some("2")),
    ]
    .map(|interest| interest.in_short());
    for filter in filters {
        let at_the_end = Place::of(filter).at(seen());
        let in_a_snapshot = Place {
            snapshot: Some("1".to_owned()),
            ..at_the_end.clone()
        };
        for place in [at_the_end, in_a_snapshot] {
            let written = place.encode(&NOBODYS);
            for other in filters {
                let taken = Place::decode_of(&written, other);
                if other == filter {
                    assert_eq!(taken.unwrap(), place);
                } else {
                    assert!(is_refused(taken), "{written} {other}");
                }
            }
            let former = Place {
                filter: None,
                ..place.clone()
            };
            let former = former.encode(&NOBODYS);
            assert_eq!(Place::decode_of(&former, filter).unwrap(), place);
        }
    }
}

#[test]
fn a_cursor_of_another_customer_is_refused_and_one_that_names_none_is_taken() {
    let place = CustomerPlace {
        seen: seen(),
        revision: 3,
        ..CustomerPlace::of("1")
    };
    let written = place.encode(&NOBODYS);
    assert_eq!(CustomerPlace::decode_of(&written, "1").unwrap(), place);
    assert!(is_refused(CustomerPlace::decode_of(&written, "2")));
    let former = Cursor(serde_json::json!({"p": seen(), "r": 3})).encode();
    assert_eq!(CustomerPlace::decode_of(&former, "1").unwrap(), place);
}

#[test]
fn all_who_are_at_one_position_share_it_and_who_has_more_to_tell_has_a_cursor_of_its_own() {
    let told = Arc::new(Offsets::from([(0, 6), (1, 7)]));
    let mut place = Place::of(0).at(seen());
    assert!(!place.is_just(&told, &OURS));
    advance_shared(&mut place.seen, &told);
    assert!(Arc::ptr_eq(&place.seen, &told) && place.is_just(&told, &OURS));
    // It is further in one partition and behind in another.
    let mut elsewhere = Place::of(0).at(Offsets::from([(0, 1), (1, 9), (2, 3)]));
    advance_shared(&mut elsewhere.seen, &told);
    assert_eq!(*elsewhere.seen, Offsets::from([(0, 6), (1, 9), (2, 3)]));
    assert_eq!(*told, Offsets::from([(0, 6), (1, 7)]));
    let named = Place {
        system: Some(in_short("ours")),
        ..place.clone()
    };
    assert!(named.is_just(&told, &OURS) && !named.is_just(&told, &NOBODYS));
    place.ahead.insert("1".to_owned(), 2);
    assert!(!place.is_just(&told, &OURS));
}

#[test]
fn a_cursor_stays_short() {
    let place = CustomerPlace {
        seen: seen(),
        ..CustomerPlace::of(&"x".repeat(64))
    };
    assert!(place.encode(&OURS).len() <= 90, "{}", place.encode(&OURS));
    assert!(Place::of(0).at(seen()).encode(&OURS).len() <= 60);
    assert!(Place::of(u32::MAX).at(seen()).encode(&OURS).len() <= 70);
}
