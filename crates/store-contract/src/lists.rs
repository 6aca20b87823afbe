//! Lists of aggregates: their pages, and spans over neighbouring lists.

use std::sync::Arc;

use tandem_event_path::store::{Filter, PageRequest, SpanRequest};

use super::{
    Example, Fixture,
    written::{ids, must_write},
};

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

pub(super) fn filter_like<A: Example>(fields: &'static [&'static str], example: &A) -> Filter {
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
    // A change moves the aggregate from one list to another.
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
            // Whatever the position, what comes after it is from the same span.
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

/// Groups. The first one has a much longer list than the others.
const LISTS: u32 = 12;
const LONG_LIST: usize = 90;
const READERS: usize = 48;

pub async fn lists_asked_for_at_once_are_each_whole<A: Example>(fixture: &impl Fixture<A>) {
    let store = fixture.aggregates().await;
    let mut states: Vec<A> = (0..LONG_LIST)
        .map(|one| A::example(&format!("long-{one:03}"), 3))
        .collect();
    for group in 0..LISTS {
        // Some groups are empty.
        states.extend((0..group % 4).map(|one| A::example(&format!("{group}-{one}"), group)));
    }
    for state in &states {
        must_write(&store, state, 1).await;
    }
    states.sort_by(|left, right| left.id().cmp(right.id()));
    let Some(fields) = A::INDEXES.iter().find(|fields| fields.len() == 1) else {
        return;
    };
    let states = Arc::new(states);
    let reader = |reader: usize| {
        let (store, states) = (Arc::clone(&store), Arc::clone(&states));
        tokio::spawn(async move {
            for round in 0..12 {
                let limit = [1, 2, 20, 500][round % 4];
                let wanted = |number: usize| {
                    let group = A::example("x", u32::try_from(number).unwrap() % LISTS);
                    let filter = filter_like(fields, &group);
                    let value = filter.0[0].1.clone();
                    let of_list = states
                        .iter()
                        .filter(|state| state.field(fields[0]).as_ref() == Some(&value));
                    let right: Vec<A> = of_list.cloned().collect();
                    (filter, value, right)
                };
                if round % 3 == 0 {
                    let all: Vec<_> = (0..LISTS as usize)
                        .map(|one| wanted(one + reader))
                        .collect();
                    let request = |(filter, _, _): &(Filter, String, Vec<A>)| PageRequest {
                        filter: filter.clone(),
                        after: None,
                        limit,
                    };
                    let requests: Vec<PageRequest> = all.iter().map(request).collect();
                    let pages = store.pages(&requests).await.unwrap();
                    for ((_, value, right), page) in all.iter().zip(pages) {
                        assert_eq!(
                            page,
                            right[..limit.min(right.len())],
                            "{value}, {limit} of it"
                        );
                    }
                } else {
                    let (_, value, right) = wanted(reader + round);
                    let request = SpanRequest {
                        field: fields[0],
                        first: value.clone(),
                        last: value.clone(),
                        after: None,
                        limit,
                    };
                    let span = store.span(&request).await.unwrap();
                    assert_eq!(
                        span.found,
                        right[..limit.min(right.len())],
                        "{value}, {limit} of it"
                    );
                    assert!(span.more || right.len() <= limit, "{value}, {limit} of it");
                }
            }
        })
    };
    let readers: Vec<_> = (0..READERS).map(reader).collect();
    for reader in readers {
        reader.await.unwrap();
    }
}
