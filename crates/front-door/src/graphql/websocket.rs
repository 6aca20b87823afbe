//! GraphQL over a WebSocket: one session, from its handshake (RFC 6455) to its end.
//!
//! It speaks graphql-transport-ws and the older graphql-ws of subscriptions-transport-ws.

mod arriving;
mod close_code;
mod handshake;
mod init_headers;
mod message_rate;
mod output;
mod protocol;
mod session;
mod socket;

pub(crate) use handshake::{is_upgrade, upgrade};
pub(crate) use session::Handshake;
