//! Everything between the network and our code, in the gateway and in both services. It trusts no input.
//!
//! A [`FrontDoor`] serves a port. It accepts connections, judges each request, speaks GraphQL's protocols, and forwards
//! well-formed, bounded operations in one form ([`graphql::Inner`]).
//!
//! * `door`: the order in which a request is judged.
//! * `http`: connections, sizes, rates, origins.
//! * `identity`: tokens, which are verified before the content of a request is read.
//! * [`graphql`]: documents, variables, cost, and the protocols over HTTP and WebSocket.
//! * `tls`, `settings`, `shutdown`, `runtime`: the port itself.
//!
//! `docs/decisions/0011-front-door.md` has the reasons.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

mod door;
pub mod graphql;
mod http;
mod identity;
mod json;
mod refusals;
mod runtime;
mod settings;
mod shutdown;
mod tls;

pub use door::FrontDoor;
pub use http::notices::Notices;
pub use http::serving::{FILE as SERVING_FILE, left_in as left_in_serving_file};
pub use json::{TooDeep, check_depth};
pub use runtime::Tasks;
pub use settings::FrontDoorSettings;
pub use shutdown::{Stop, Stopper, stop};
pub use tls::{Clients, Tls, TlsError, TlsSettings};
