//! The GraphQL side of a subgraph: access, errors with codes, scalars, Relay connections, and the endpoint.

pub mod access;
mod batched;
mod beside;
pub mod connection;
mod documents;
pub mod endpoint;
mod entities;
pub mod error;
mod field_errors;
mod member_order;
pub mod scalars;
pub mod sdl;
mod text_key;
pub mod written;

pub use crate::error_code::ErrorCode;
pub use access::{access, refuse_access, require, require_or_own};
pub use batched::batched;
pub use beside::{beside, beside_entity};
pub use connection::{Connection, Cursor, PageInfo, PageRequest, connection};
pub use endpoint::{Caller, GraphQlEndpoint, Limits, guard, wrote};
pub use error::{ApiError, ErrorCodes, request_key};
pub use scalars::{DateTime, Decimal};
pub use text_key::{TextKey, TextList};
