//! GraphQL for clients: turns their requests into well-formed and bounded operations.
//!
//! In the order in which a request passes:
//!
//! 1. Protocols: `over_http`, `negotiation`, `streams`, `websocket`; a request is a `call`.
//! 2. Documents, checked once and cached: `document`, `document_limits`, `tokens`, `bounds`, `schema`, `cost`,
//!    `persisted`.
//! 3. Rewriting, where other libraries do not follow the specification: `rewrite`, `aliases`, `absent_variables`,
//!    `numbers`, `default_values`, `escapes`, `fillers`, `steps`, `subscription_root`, `duplicates`, `typenames`.
//!    `docs/upstream.md` lists the faults.
//! 4. The request itself: `variables`, `request_checks`, `prepared_operation`, `consistency`.
//! 5. Forwarding: `inner` (the one form), `forwarding`, `time_limit`.
//! 6. Answers: `answers`, `as_asked`, `bounded_answer`, `joined_answer`, `events` (subscriptions), `outgoing`, `error`,
//!    `telemetry`.

mod absent_variables;
mod aliases;
mod answers;
mod as_asked;
mod bounded_answer;
mod bounds;
mod call;
mod chosen_operation;
mod consistency;
mod cost;
mod default_values;
mod diagnostics;
mod document;
mod document_limits;
mod duplicates;
mod endpoint;
mod error;
mod escapes;
mod events;
mod fillers;
mod forwarding;
mod inner;
mod input_fields;
mod introspection;
mod joined_answer;
mod literals;
mod negotiation;
mod numbers;
mod operation_request;
mod outgoing;
mod over_http;
mod persisted;
mod prepared_operation;
mod references;
mod request_checks;
mod rewrite;
mod schema;
mod steps;
mod streams;
mod subscription_root;
mod telemetry;
#[cfg(test)]
mod test_support;
mod time_limit;
mod tokens;
mod treatment;
mod typenames;
mod values;
mod variable_usages;
mod variables;
mod variants;
mod websocket;
mod weight;

pub use document_limits::DocumentLimits;
pub(crate) use endpoint::GraphQl;
pub use endpoint::GraphQlRules;
pub use error::{Code, Location, Refused, RequestError};
pub use inner::{Inner, VariablesChecked};
pub use persisted::{ManifestError, TrustedDocuments, hash, manifest};
pub use prepared_operation::Kind as OperationKind;
pub use schema::{GraphSchema, SchemaError};
pub use treatment::Treatment;
pub(crate) use websocket::{Handshake, is_upgrade, upgrade};
