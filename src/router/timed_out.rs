//! Remembers which services exceeded their time limit in the current operation. Further calls to such a service fail at
//! once. Each one would take as long again, and the operation would lose what other services have answered.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;

use tokio::task_local;

task_local! {
    static TIMED_OUT: RefCell<BTreeSet<String>>;
}

/// Executes an operation and remembers meanwhile which services exceeded their time limit. The events of a subscription
/// come later: a service that hung in one event is called again for the next.
pub(super) async fn remembered<T>(operation: impl Future<Output = T>) -> T {
    TIMED_OUT.scope(RefCell::default(), operation).await
}

/// Records a service for the surrounding [`remembered`].
pub(super) fn note(service: &str) {
    // Outside of `remembered` nobody asks.
    let _ = TIMED_OUT.try_with(|noted| noted.borrow_mut().insert(service.to_owned()));
}

/// Whether this service was recorded in the current operation.
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
