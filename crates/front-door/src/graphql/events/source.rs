//! The sources of a subscription's events and how they end: a queue that is read ahead, or an upstream that waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::server_sent::Parser;
use super::share::Share;

/// How the events end. Without an explicit end they are incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ending {
    /// The stream broke off.
    Cut,
    /// Upstream said that there are no more events.
    Complete,
    /// The client was too slow.
    Lagged,
}

impl Ending {
    fn of(number: u8) -> Self {
        [Self::Complete, Self::Lagged]
            .into_iter()
            .find(|ending| *ending as u8 == number)
            .unwrap_or(Self::Cut)
    }
}

/// The source of the events.
pub(super) enum Source {
    /// The events are read ahead.
    Queue {
        events: mpsc::Receiver<Bytes>,
        held: Share,
        ending: Arc<AtomicU8>,
    },
    /// An event is read when the client has taken the one before.
    Upstream {
        body: Body,
        parser: Parser,
        read: VecDeque<Bytes>,
    },
}

impl Source {
    /// The next event; `None` at the end. It is safe to cancel.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        match self {
            Self::Queue { events, held, .. } => {
                let event = events.recv().await?;
                held.give_back(event.len());
                Some(event)
            }
            Self::Upstream { body, parser, read } => loop {
                if let Some(event) = read.pop_front() {
                    if read.is_empty() {
                        // An empty queue keeps no capacity.
                        *read = VecDeque::new();
                    }
                    return Some(event);
                }
                if parser.is_complete {
                    return None;
                }
                if let Ok(chunk) = body.frame().await?.ok()?.into_data() {
                    parser.feed(chunk, read);
                }
            },
        }
    }

    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Queue { ending, .. } => Ending::of(ending.load(Ordering::Acquire)),
            Self::Upstream { parser, .. } if parser.is_complete => Ending::Complete,
            Self::Upstream { .. } => Ending::Cut,
        }
    }
}
