//! The queue of messages for the client of one connection, for all of its operations.
//!
//! An empty queue takes almost no memory, because there may be ten thousand connections.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tandem_runtime::notified;
use tokio::sync::Notify;

use crate::http::admission::Counted;

/// The most bytes that wait for one client.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// An empty queue keeps capacity for this many messages.
const KEPT: usize = 8;

/// A message for the client, from the operation with this id and number.
pub(super) struct Outgoing {
    pub(super) id: Arc<str>,
    pub(super) number: u64,
    pub(super) what: What,
    /// Counts a large answer while it waits. It is boxed because few answers are large and each message would hold room
    /// for it.
    pub(super) _counted: Option<Box<Counted>>,
}

pub(super) enum What {
    Next(Bytes),
    /// The operation ends with these errors, as JSON.
    Failed(String),
    Complete,
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            Self::Next(payload) => payload.len(),
            Self::Failed(_) | Self::Complete => 0,
        }
    }
}

/// A queue from many operations to their connection. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Notify,
    less: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Outgoing>,
    bytes: usize,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, one: Outgoing) {
        {
            let mut waiting = self.waiting();
            waiting.bytes += one.what.bytes();
            waiting.messages.push_back(one);
        }
        self.0.more.notify_one();
    }

    /// Takes the first message, if there is one.
    pub(super) fn take(&self) -> Option<Outgoing> {
        let one = {
            let mut waiting = self.waiting();
            let one = waiting.messages.pop_front()?;
            waiting.bytes -= one.what.bytes();
            if waiting.messages.is_empty() && waiting.messages.capacity() > KEPT {
                waiting.messages = VecDeque::new();
            }
            one
        };
        if one.what.bytes() > 0 {
            self.0.less.notify_waiters();
        }
        Some(one)
    }

    /// Waits for the first message. Only the connection may call it. It is safe to cancel.
    pub(super) async fn next(&self) -> Outgoing {
        loop {
            if let Some(one) = self.take() {
                return one;
            }
            // `Notify` keeps a notification that came before this call.
            self.0.more.notified().await;
        }
    }

    /// Whether this many more bytes may wait. If nothing waits, a message of any size may.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let waiting = self.waiting().bytes;
        waiting == 0 || waiting + bytes <= MOST_BYTES
    }

    /// Waits while the client has much to read. Meanwhile the events wait in the subscription's own queue, which has a
    /// bound.
    pub(super) async fn room(&self, bytes: usize) {
        notified::until(&self.0.less, || self.has_room(bytes)).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn message(number: u64, bytes: usize) -> Outgoing {
        Outgoing {
            id: "1".into(),
            number,
            what: What::Next(vec![0; bytes].into()),
            _counted: None,
        }
    }

    #[tokio::test]
    async fn messages_are_taken_in_order_and_waited_for() {
        let queue = Queue::default();
        assert!(queue.next().now_or_never().is_none());
        for number in 0..100 {
            queue.put(message(number, 1));
        }
        for number in 0..100 {
            assert_eq!(queue.next().await.number, number);
        }
        assert!(queue.take().is_none());
        assert!(queue.waiting().messages.capacity() <= KEPT);
        let (one, ()) = tokio::join!(queue.next(), async { queue.put(message(7, 1)) });
        assert_eq!(one.number, 7);
    }

    #[tokio::test]
    async fn an_operation_waits_for_a_client_that_has_much_to_read() {
        let queue = Queue::default();
        queue.room(2 * MOST_BYTES).await;
        queue.put(message(1, MOST_BYTES));
        assert!(queue.room(1).now_or_never().is_none());
        let taken = async { queue.next().await };
        let ((), one) = tokio::join!(queue.room(1), taken);
        assert_eq!(one.number, 1);
    }
}
