//! The GraphQL side of a subgraph: errors with codes, scalars, Relay connections and the HTTP and WebSocket endpoint.

pub mod connection;
mod documents;
pub mod endpoint;
pub mod error;
pub mod scalars;

pub use connection::{Connection, Cursor, PageInfo, PageRequest, connection};
pub use endpoint::{Caller, GraphQlEndpoint, Limits, guard};
pub use error::{ApiError, ErrorCode, ErrorCodes};
pub use scalars::{Decimal, Timestamp};
