//! The time limit of a query or mutation, for all of its steps together. After it the operation is cancelled, and the
//! client learns what is known about its outcome.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::error::{Code, Refused, RequestError};
use super::prepared_operation::Kind;

/// The remaining time of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimit(Option<(Duration, Instant)>);

/// The time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Late {
    limit: Duration,
    /// Whether the cancelled work had begun.
    is_begun: bool,
}

impl TimeLimit {
    /// Starts the limit now. Without a limit, any time is permitted.
    pub(super) fn from_now(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| (limit, Instant::now() + limit)))
    }

    /// Runs some work within the remaining time. The work is dropped when the time is over, and does not start if the
    /// time was over before.
    ///
    /// # Errors
    /// When the time is over.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Late> {
        let Some((limit, ends)) = self.0 else {
            return Ok(work.await);
        };
        let late = |is_begun| Late { limit, is_begun };
        if Instant::now() >= ends {
            return Err(late(false));
        }
        tokio::time::timeout_at(ends, work)
            .await
            .map_err(|_| late(true))
    }
}

impl Late {
    /// The error for the client. `is_step` says whether it is about one of several fields.
    pub(super) fn refused(self, kind: Kind, is_step: bool) -> Refused {
        let known = match (kind, is_step, self.is_begun) {
            (Kind::Mutation, true, true) => {
                "whether this field was carried out is not known, those behind it were not begun"
            }
            (Kind::Mutation, true, false) => "this field and those behind it were not begun",
            (Kind::Mutation, false, true) => "whether it was carried out is not known",
            (Kind::Mutation, false, false) => "it was not begun",
            _ => "ask for less at once, or again in a moment",
        };
        RequestError::new(
            StatusCode::GATEWAY_TIMEOUT,
            Code::Unavailable,
            "answer",
            format!(
                "the operation as a whole took longer than the {} s that it is given (--operation-timeout-seconds): {known}",
                self.limit.as_secs()
            ),
        )
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_given_up_when_the_time_is_over_and_no_other_is_begun() {
        let limit = Duration::from_secs(30);
        let time = TimeLimit::from_now(Some(limit));
        assert_eq!(time.within(async { 1 }).await, Ok(1));
        let begun = Instant::now();
        let late = time.within(pending::<()>()).await;
        assert_eq!(begun.elapsed(), limit);
        let is_begun = true;
        assert_eq!(late, Err(Late { limit, is_begun }));
        let mut was_begun = false;
        let late = time.within(async { was_begun = true }).await;
        assert_eq!(late.map_err(|late| late.is_begun), Err(false));
        assert!(!was_begun);
        assert_eq!(TimeLimit::from_now(None).within(async { 2 }).await, Ok(2));
    }

    #[test]
    fn who_is_late_is_told_which_limit_it_was_and_what_is_known() {
        let late = |is_begun| Late {
            limit: Duration::from_secs(30),
            is_begun,
        };
        let told = |late: Late, kind, is_step| late.refused(kind, is_step).errors().to_string();
        for (told, known) in [
            (told(late(true), Kind::Query, false), "ask for less"),
            (told(late(true), Kind::Mutation, false), "is not known"),
            (
                told(late(true), Kind::Mutation, true),
                "behind it were not begun",
            ),
            (
                told(late(false), Kind::Mutation, true),
                "this field and those",
            ),
        ] {
            assert!(
                told.contains(known) && told.contains("UNAVAILABLE"),
                "{told}"
            );
            assert!(told.contains("30 s") && told.contains("--operation-timeout-seconds"));
        }
    }
}
