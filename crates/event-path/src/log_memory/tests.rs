//! A log is judged by what is remembered of it.

use super::*;

fn checkpoint(offset: i64, fingerprint: &str) -> Checkpoint {
    Checkpoint {
        offset,
        fingerprint: fingerprint.to_owned(),
    }
}

#[test]
fn a_log_is_judged_by_its_ends_and_by_the_message_that_was_applied_last() {
    let remembered = Remembered {
        begin: 2,
        last: checkpoint(9, "nine"),
        identity: None,
    };
    let judge = |ends, found: Option<Checkpoint>| judge(&remembered, ends, found.as_ref());
    let same = || Some(checkpoint(9, "nine"));
    assert_eq!(judge((2, 10), same()), None);
    assert_eq!(judge((0, 50), same()), None);
    assert!(judge((2, 9), same()).is_some_and(|what| what.contains("ends before")));
    assert!(judge((3, 10), same()).is_some_and(|what| what.contains("began at 2")));
    assert!(
        judge((2, 50), Some(checkpoint(9, "other")))
            .is_some_and(|what| what.contains("another log"))
    );
    assert!(judge((2, 50), None).is_some_and(|what| what.contains("another log")));
}
