//! The cases of a store's registry.

use crate::{Example, Fixture};

pub async fn what_was_remembered_first_stays<A: Example>(fixture: &impl Fixture<A>) {
    let registry = fixture.registry().await;
    assert_eq!(registry.recall("name").await.unwrap(), None);
    assert_eq!(registry.remember("name", "first").await.unwrap(), "first");
    assert_eq!(registry.remember("name", "second").await.unwrap(), "first");
    drop(registry);
    let registry = fixture.registry().await;
    let recalled = registry.recall("name").await.unwrap();
    assert_eq!(recalled.as_deref(), Some("first"));
}

pub async fn what_is_noted_replaces_what_was_there_until_it_is_forgotten<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let registry = fixture.registry().await;
    registry.note("log/a/0", "1").await.unwrap();
    registry.note("log/a/0", "2").await.unwrap();
    let recalled = registry.recall("log/a/0").await.unwrap();
    assert_eq!(recalled.as_deref(), Some("2"));
    registry.forget("log/a/0").await.unwrap();
    registry.forget("log/a/0").await.unwrap();
    assert_eq!(registry.recall("log/a/0").await.unwrap(), None);
}

pub async fn all_names_that_begin_alike_are_recalled_and_no_others<A: Example>(
    fixture: &impl Fixture<A>,
) {
    let registry = fixture.registry().await;
    for name in ["log/a/0", "log/a/10", "log/aa/0", "log/", "log/b/0", "lo"] {
        registry.note(name, name).await.unwrap();
    }
    let recall = async |prefix: &str| {
        let mut found = registry.recall_all(prefix).await.unwrap();
        found.sort();
        found
    };
    let pairs = |names: &[&str]| -> Vec<(String, String)> {
        let pair = |name: &&str| ((*name).to_owned(), (*name).to_owned());
        names.iter().map(pair).collect()
    };
    assert_eq!(recall("log/a/").await, pairs(&["log/a/0", "log/a/10"]));
    assert_eq!(recall("log/c/").await, pairs(&[]));
    assert_eq!(recall("").await.len(), 6);
}
