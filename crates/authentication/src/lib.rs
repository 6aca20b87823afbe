//! Callers and their rights: verifies JSON Web Tokens (RFC 7519) and reads their scopes.
//!
//! The gateway and both services use this one crate, so a token means the same everywhere. It does not depend on HTTP
//! or GraphQL: a transport passes a token and gets a [`Principal`], or the reason for the refusal.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

mod access;
mod clock;
mod development;
mod key_set;
mod principal;
mod scope;
mod settings;
mod source;
mod subject;
mod verified_tokens;
mod verifier;

pub use access::{Access, Denial, Sight};
pub use clock::seconds_since_1970;
pub use development::{DevelopmentKey, DevelopmentKeyError};
pub use key_set::{KeySet, KeySetError};
pub use principal::Principal;
pub use scope::{Scope, Scopes, UnknownScope};
pub use settings::{AuthenticationSettings, SettingsError};
pub use source::{KeySource, SourceError};
pub use verifier::{Rejection, Verifier};
