//! The accounts subgraph: the system of record of customers.
//!
//! `domain` knows the rules and nothing of the outside; `graphql`, `rest` and `audit` speak for it;
//! `service` puts the parts together.

pub mod domain;
