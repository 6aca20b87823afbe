//! Fuzzes the front door with requests, documents, heads and frames.
#![allow(missing_docs)]

use tandem_fuzzing::try_target;

#[test]
fn a_request_is_carried_out_or_refused_whatever_its_body_is() {
    try_target("requests");
}

#[test]
fn a_request_is_carried_out_or_refused_whatever_its_document_is() {
    try_target("documents");
}

#[test]
fn heads_of_requests_and_what_is_no_request_cost_themselves() {
    try_target("heads");
}

#[test]
fn frames_of_a_websocket_cost_their_connection_at_most() {
    try_target("sockets");
}
