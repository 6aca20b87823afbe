//! GraphQL as clients speak it, made into well-formed and bounded operations.

mod aliases;
mod bounds;
mod call;
mod consistency;
mod cost;
mod document;
mod duplicates;
mod endpoint;
mod error;
mod escapes;
mod events;
mod inner;
mod introspection;
mod literals;
mod negotiation;
mod outgoing;
mod persisted;
mod rewrite;
mod schema;
mod steps;
mod streams;
mod subscription_root;
mod tokens;
mod variables;
mod websocket;

pub use document::{DocumentLimits, Treatment};
pub(crate) use endpoint::GraphQl;
pub use endpoint::GraphQlRules;
pub use error::{Code, Location, Refused, RequestError};
pub use inner::Inner;
pub use persisted::{ManifestError, TrustedDocuments, hash, manifest};
pub use schema::{GraphSchema, SchemaError};
pub(crate) use websocket::{Handshake, is_upgrade, upgrade};
