//! The close codes of RFC 6455, section 7.4, and of graphql-transport-ws.

use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};

pub(super) const NORMAL: u16 = 1000;
pub(super) const PROTOCOL: u16 = 1002;
pub(super) const NOT_UTF8: u16 = 1007;
/// Policy Violation.
pub(super) const TOO_SLOW: u16 = 1008;
pub(super) const TOO_LARGE: u16 = 1009;
/// Service Restart (IANA, WebSocket Close Code Number Registry): the client should connect again.
pub(super) const RESTART: u16 = 1012;
/// Try Again Later (the same registry).
pub(super) const TRY_AGAIN: u16 = 1013;
pub(super) const BAD_REQUEST: u16 = 4400;
pub(super) const UNAUTHORIZED: u16 = 4401;
pub(super) const INIT_TIMED_OUT: u16 = 4408;
pub(super) const ALREADY_EXISTS: u16 = 4409;
pub(super) const TOO_MANY_INITS: u16 = 4429;

/// Why a session ends: the code and the reason for the client.
#[derive(Debug, PartialEq)]
pub(super) struct Close(pub(super) u16, pub(super) &'static str);

/// The close code for a connection that violated the protocol.
pub(super) fn closed_by(error: &WsError) -> Option<Close> {
    Some(match error {
        WsError::Utf8(_) => Close(NOT_UTF8, "text must be UTF-8"),
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            Close(TOO_LARGE, "the message is too large")
        }
        WsError::Capacity(_) => Close(TOO_LARGE, "too large"),
        WsError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => {
            return None;
        }
        WsError::Protocol(_) => Close(PROTOCOL, "not as RFC 6455 has it"),
        _ => return None,
    })
}
