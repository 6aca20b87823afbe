//! Shared code of the tests of several modules: documents that are checked against our own schema.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::document::Documents;
use super::document_limits::DocumentLimits;
use super::schema::GraphSchema;
use super::treatment::Treatment;

pub(super) fn documents(for_a_router: bool) -> Documents {
    let schema = GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql"));
    let treatment = Treatment {
        known_operations: Some(HashSet::from(["Known".to_owned()])),
        fill_empty_selections: for_a_router,
        is_federated: for_a_router,
    };
    Documents::new(Some(schema.unwrap()), DocumentLimits::default(), treatment)
}
