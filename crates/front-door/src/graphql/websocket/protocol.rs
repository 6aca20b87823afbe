//! The supported subprotocols and their names for messages.

use axum::http::{HeaderMap, header};

/// The names of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// graphql-transport-ws
    Transport,
    /// graphql-ws of subscriptions-transport-ws
    Older,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Transport, Self::Older];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Transport => "graphql-transport-ws",
            Self::Older => "graphql-ws",
        }
    }

    /// The first subprotocol that the client offers and this port speaks.
    pub(super) fn chosen(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(|offered| {
                Self::ALL
                    .into_iter()
                    .find(|known| known.name() == offered.trim())
            })
    }

    pub(super) fn next(self) -> &'static str {
        match self {
            Self::Transport => "next",
            Self::Older => "data",
        }
    }
}
