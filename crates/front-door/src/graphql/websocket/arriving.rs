//! WebSocket messages that have begun to arrive and are not complete.
//!
//! They are buffered, so the time to complete one is bounded. The keep-alive alone does not bound it: a sender may put
//! pings between the fragments of a message (RFC 6455, section 5.4).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::Message;

/// This many bytes of an incomplete message may wait without a time limit.
const SMALL: u64 = 16 * 1024;
/// Bytes before the payload of a client's control frame.
const CONTROL_HEAD: u64 = 6;

/// A connection that counts the bytes that are read from it.
#[derive(Debug)]
pub(super) struct Arriving<T> {
    io: T,
    bytes: u64,
}

impl<T> Arriving<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, bytes: 0 }
    }

    /// How many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Arriving<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let more = buffer.filled().len().saturating_sub(before);
        self.bytes = self.bytes.saturating_add(more as u64);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Arriving<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Tracks the message that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// Bytes that do not belong to an incomplete message.
    whole: u64,
    /// Whether the incomplete message was large at the last check.
    was_large: bool,
}

impl Unfinished {
    /// Notes a received message. `bytes` is how many bytes had been read by then.
    pub(super) fn took(&mut self, message: &Message, bytes: u64) {
        match message {
            Message::Ping(payload) | Message::Pong(payload) => {
                self.whole += payload.len() as u64 + CONTROL_HEAD;
            }
            // Only few bytes were read beyond the end of the message.
            _ => {
                self.whole = bytes;
                self.was_large = false;
            }
        }
    }

    /// Whether an incomplete message is large now and was large at the last check.
    pub(super) fn is_stuck(&mut self, bytes: u64) -> bool {
        let is_large = bytes.saturating_sub(self.whole) > SMALL;
        std::mem::replace(&mut self.was_large, is_large) && is_large
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_message_that_does_not_end_is_seen_between_pings_and_one_that_does_is_not() {
        let ping = Message::Ping(Bytes::from_static(b"here"));
        let mut unfinished = Unfinished::default();
        let mut bytes = 0;
        // Pings do not count, however many there are.
        for _ in 0..10_000 {
            bytes += 4 + CONTROL_HEAD;
            unfinished.took(&ping, bytes);
            assert!(!unfinished.is_stuck(bytes));
        }
        // First a small part of a message, then much of it.
        bytes += SMALL;
        assert!(!unfinished.is_stuck(bytes) && !unfinished.is_stuck(bytes));
        bytes += 1;
        assert!(!unfinished.is_stuck(bytes));
        bytes += 4 + CONTROL_HEAD;
        unfinished.took(&ping, bytes);
        assert!(unfinished.is_stuck(bytes));
        // Its end.
        bytes += 100;
        unfinished.took(&Message::text("x"), bytes);
        assert!(!unfinished.is_stuck(bytes) && !unfinished.is_stuck(bytes));
        bytes += 2 * SMALL;
        assert!(!unfinished.is_stuck(bytes));
        unfinished.took(&Message::text("x"), bytes);
        bytes += 2 * SMALL;
        assert!(!unfinished.is_stuck(bytes) && unfinished.is_stuck(bytes));
    }

    #[tokio::test]
    async fn bytes_are_counted_as_they_are_read_and_not_as_they_are_written() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Arriving::new(server);
        client.write_all(&[1; 40]).await.unwrap();
        server.write_all(&[2; 50]).await.unwrap();
        server.read_exact(&mut [0; 30]).await.unwrap();
        assert_eq!(server.bytes(), 30);
        server.read_exact(&mut [0; 10]).await.unwrap();
        assert_eq!(server.bytes(), 40);
    }
}
