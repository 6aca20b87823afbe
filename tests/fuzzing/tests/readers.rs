//! Fuzzes everything else that reads bytes from outside.
#![allow(missing_docs)]

use tandem_fuzzing::try_target;

#[test]
fn an_event_is_read_or_refused_with_a_reason() {
    try_target("events");
}

#[test]
fn an_events_headers_are_read_or_refused_with_a_reason() {
    try_target("headers");
}

#[test]
fn a_cursor_that_is_taken_is_written_the_same_again() {
    try_target("cursors");
}

#[test]
fn a_time_or_a_decimal_that_is_taken_is_written_the_same_again() {
    try_target("scalars");
}

#[test]
fn only_the_token_that_was_signed_is_taken() {
    try_target("tokens");
}

#[test]
fn a_body_is_taken_or_refused_with_a_problem_whatever_it_is() {
    try_target("rest");
}
