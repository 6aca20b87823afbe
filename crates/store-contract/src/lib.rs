//! What every adapter of the store ports must do: one list of test cases for all adapters.
//!
//! A test file names its adapter once, in [`store_contract!`], and gets one test for each case. A [`Fixture`] opens the
//! adapter, with an aggregate of the service or with [`Sample`].
#![allow(clippy::disallowed_methods, reason = "tests run on real stores")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod aggregates;
pub mod change_log;
mod counting;
pub mod dead_letters;
pub mod lists;
pub mod outbox;
pub mod places;
pub mod reads;
pub mod registry;
pub mod restored;
mod sample;
pub mod written;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use tandem_event_path::store::{AggregateStore, ChangeLog, DeadLetterStore, Registry};
use tandem_model::aggregate::Aggregate;

pub use counting::Counting;
pub use sample::Sample;

/// An aggregate that the suite can create.
pub trait Example: Aggregate + PartialEq {
    /// A new aggregate at revision 1. Aggregates of one group have the same values in the fields of each list; other
    /// groups have other values.
    fn example(id: &str, group: u32) -> Self;

    /// The next revision, in another group and with other content.
    fn changed(&self, group: u32) -> Self;
}

/// A place where stores are opened. It is empty at first, and removed when it is dropped.
#[async_trait]
pub trait Fixture<A: Example>: Debug + Send + Sync {
    /// Opens the store of aggregates. If it is opened again after the previous handle was dropped, it has the same
    /// content.
    async fn aggregates(&self) -> Arc<dyn AggregateStore<A>>;

    /// Opens the audit trail.
    async fn change_log(&self) -> Arc<dyn ChangeLog>;

    /// Opens the dead letters.
    async fn dead_letters(&self) -> Arc<dyn DeadLetterStore>;

    /// Opens the store's registry.
    async fn registry(&self) -> Arc<dyn Registry>;
}

/// Wraps a service's aggregate in a type of the test, so that [`Example`] can be implemented for it:
/// `own_aggregate!(Own, Customer)`. It is stored like the aggregate itself.
#[macro_export]
macro_rules! own_aggregate {
    ($own:ident, $aggregate:ty) => {
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(transparent)]
        struct $own($aggregate);

        impl ::tandem_model::aggregate::Aggregate for $own {
            const NAME: &'static str = <$aggregate as ::tandem_model::aggregate::Aggregate>::NAME;
            const COLLECTION: &'static str =
                <$aggregate as ::tandem_model::aggregate::Aggregate>::COLLECTION;
            const INDEXES: &'static [&'static [&'static str]] =
                <$aggregate as ::tandem_model::aggregate::Aggregate>::INDEXES;

            fn id(&self) -> &str {
                ::tandem_model::aggregate::Aggregate::id(&self.0)
            }

            fn revision(&self) -> i64 {
                ::tandem_model::aggregate::Aggregate::revision(&self.0)
            }

            fn field(&self, name: &str) -> Option<String> {
                ::tandem_model::aggregate::Aggregate::field(&self.0, name)
            }
        }
    };
}

/// Generates one test for each case: `store_contract!(Sample, fixture())`. `fixture()` is an async function that
/// returns an `Option` of a [`Fixture`]; `None` if what the store needs is not available here.
#[macro_export]
macro_rules! store_contract {
    ($aggregate:ty, $fixture:expr) => {
        $crate::store_contract!(@ $aggregate, $fixture, aggregates:
            a_written_aggregate_is_read_back,
            a_change_is_read_back,
            a_stale_revision_is_refused,
            an_aggregate_is_created_once,
            a_change_of_an_aggregate_that_is_not_there_is_refused,
            reads_come_back_in_the_order_asked_for,
            an_idempotency_key_is_taken_once,
            an_idempotency_key_is_taken_once_on_the_same_aggregate,
            of_requests_racing_with_one_key_one_wins,
            the_first_answer_is_kept_and_then_forgotten,
            an_answer_is_kept_without_a_change,
            answers_of_some_are_forgotten_and_their_keys_stay_used,
            a_write_forgets_the_answers_before_it_and_their_keys_stay_used,
            of_many_answers_the_last_are_kept,
            concurrent_writers_leave_no_gap_and_no_fork,
            writes_and_clears_at_once_lose_nothing,
            many_aggregates_written_at_once_are_all_there,
            a_durable_write_is_there_after_reopening,
            a_store_that_is_there_answers,
        );
        $crate::store_contract!(@ $aggregate, $fixture, lists:
            all_are_listed_page_by_page,
            a_list_holds_what_its_fields_say,
            many_pages_come_from_one_read,
            a_list_that_is_not_kept_is_an_error,
            lists_side_by_side_come_from_one_read,
            lists_asked_for_at_once_are_each_whole,
        );
        $crate::store_contract!(@ $aggregate, $fixture, outbox:
            pending_events_come_in_order_with_whole_keys,
            pending_events_that_are_too_young_are_left,
            clearing_forgets_up_to_a_revision,
            the_backlog_is_counted,
        );
        $crate::store_contract!(@ $aggregate, $fixture, restored:
            restored_states_replace_all_but_newer_ones,
            many_states_are_restored_at_once,
            what_has_nothing_pending_is_listed_in_order_of_id,
            an_aggregate_is_removed_only_as_it_was_seen,
            an_aggregate_is_set_back_only_as_it_was_seen,
        );
        $crate::store_contract!(@ $aggregate, $fixture, reads:
            many_readers_at_once_each_get_what_they_asked_for,
            a_reader_sees_what_was_written_before_it_asked_beside_many_others,
            readers_who_go_away_leave_the_others_their_answers,
        );
        $crate::store_contract!(@ $aggregate, $fixture, change_log:
            of_one_revision_the_first_seen_stays,
            changes_are_read_in_pages,
            the_audit_trail_is_there_after_reopening,
            entries_put_back_replace_what_differs,
            entries_are_listed_and_removed_only_as_they_were_seen,
        );
        $crate::store_contract!(@ $aggregate, $fixture, dead_letters:
            dead_letters_are_listed_in_order,
            a_dead_letter_is_parked_once,
            keys_are_parked_until_their_last_letter_is_gone,
            dead_letters_are_read_in_pages_of_what_is_asked_for,
            all_letters_of_a_key_are_removed_and_no_others,
        );
        $crate::store_contract!(@ $aggregate, $fixture, registry:
            what_was_remembered_first_stays,
            what_is_noted_replaces_what_was_there_until_it_is_forgotten,
            all_names_that_begin_alike_are_recalled_and_no_others,
        );
    };
    (@ $aggregate:ty, $fixture:expr, $group:ident: $($case:ident,)+) => {
        mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    #[allow(unused_imports)]
                    use super::*;
                    if let Some(fixture) = $fixture.await {
                        $crate::$group::$case::<$aggregate>(&fixture).await;
                    }
                }
            )+
        }
    };
}
