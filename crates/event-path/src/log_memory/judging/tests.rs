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
        proven: None,
        identity: None,
    };
    let judge = |ends, found: Option<Checkpoint>| judge(&remembered, ends, |_| found.as_ref());
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

#[test]
fn a_log_that_has_outgrown_the_old_one_is_known_by_what_was_proven_before() {
    let remembered = Remembered {
        begin: 0,
        last: checkpoint(20, "of the new one"),
        proven: Some(checkpoint(9, "nine")),
        identity: None,
    };
    let new = HashMap::from([
        (20, checkpoint(20, "of the new one")),
        (9, checkpoint(9, "other")),
    ]);
    let judged = judge(&remembered, (0, 30), |applied| new.get(&applied.offset));
    assert!(judged.is_some_and(|what| what.contains("offset 9 is not the one")));
    let same = HashMap::from([(20, remembered.last.clone()), (9, checkpoint(9, "nine"))]);
    assert_eq!(
        judge(&remembered, (0, 30), |applied| same.get(&applied.offset)),
        None
    );
    // The new log has not outgrown the old one, and was read from its beginning.
    let shorter = Remembered {
        last: checkpoint(0, "of the new one"),
        ..remembered
    };
    let judged = judge(&shorter, (0, 1), Some);
    assert!(judged.is_some_and(|what| what.contains("ends before offset 1")));
}
