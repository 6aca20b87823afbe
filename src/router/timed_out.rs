//! Which services did not answer in time in the operation at hand. What else it asks of them fails at once: each further call would cost it
//! as long again, and with that what other services have answered.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;

use tokio::task_local;

task_local! {
    static TIMED_OUT: RefCell<BTreeSet<String>>;
}

/// Carries an operation out, and remembers as long as that takes who did not answer in time. The events of a subscription come later: a service
/// that hung in one of them is asked again in the next.
pub(super) async fn remembered<T>(operation: impl Future<Output = T>) -> T {
    TIMED_OUT.scope(RefCell::default(), operation).await
}

/// Notes a service, within [`remembered`].
pub(super) fn note(service: &str) {
    // Elsewhere nobody asks.
    let _ = TIMED_OUT.try_with(|noted| noted.borrow_mut().insert(service.to_owned()));
}

/// Whether this service was noted in the operation at hand.
pub(super) fn is_noted(service: &str) -> bool {
    TIMED_OUT
        .try_with(|noted| noted.borrow().contains(service))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_did_not_answer_in_time_is_known_within_the_operation_and_not_beyond_it() {
        remembered(async {
            assert!(!is_noted("accounts"));
            note("accounts");
            assert!(is_noted("accounts") && !is_noted("orders"));
            remembered(async { assert!(!is_noted("accounts")) }).await;
        })
        .await;
        note("accounts");
        assert!(!is_noted("accounts"));
    }
}
