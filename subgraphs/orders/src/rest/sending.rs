//! A response body that is written while it is sent. Memory holds no more of it than the bounded amount that a slow
//! client may leave unread.
//!
//! The body ends normally only if its writer says so. Whatever else happens to the writer breaks the connection, so
//! that no client takes a part for the whole document.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use tandem_event_path::store::StoreError;
use tokio::sync::mpsc;

/// The number of bytes that are collected before they are sent.
const CHUNK: usize = 64 * 1024;
/// How much a chunk may be longer than [`CHUNK`]: one customer or order of the usual size.
const OVER: usize = 4 * 1024;
/// The maximum number of chunks that wait for a slow client.
const QUEUE: usize = 2;

enum Part {
    Chunk(Bytes),
    End,
}

/// Why writing ends early.
pub(super) enum Stop {
    /// The client disconnected.
    Left,
    /// The store or serde failed.
    Failed(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for Stop {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Writes a body.
pub(super) struct Writer {
    /// The text that has not been sent yet.
    pub(super) text: Vec<u8>,
    parts: mpsc::Sender<Part>,
}

impl Writer {
    /// Sends the text if there is enough of it. Waits while the client is slower than the writer.
    pub(super) async fn flush_if_full(&mut self) -> Result<(), Stop> {
        if self.text.len() < CHUNK {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends the text.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        let full = std::mem::replace(&mut self.text, Vec::with_capacity(CHUNK + OVER));
        self.send(Part::Chunk(Bytes::from(full))).await
    }

    /// Sends the text, and ends the body.
    pub(super) async fn end(mut self) -> Result<(), Stop> {
        self.flush().await?;
        self.send(Part::End).await
    }

    async fn send(&self, part: Part) -> Result<(), Stop> {
        self.parts.send(part).await.map_err(|_| Stop::Left)
    }
}

/// A body that begins with `text` and is continued by `write` in its own task. When the client disconnects, writing is
/// stopped at whatever point it is.
pub(super) fn body<F>(text: Vec<u8>, write: impl FnOnce(Writer) -> F) -> Body
where
    F: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let (parts, received) = mpsc::channel(QUEUE);
    let client = parts.clone();
    let writing = write(Writer { text, parts });
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = client.closed() => {}
            written = writing => if let Err(Stop::Failed(reason)) = written {
                tracing::error!(reason, "an answer broke off");
            }
        }
    });
    Body::from_stream(Sent {
        received,
        ended: false,
    })
}

struct Sent {
    received: mpsc::Receiver<Part>,
    ended: bool,
}

impl Stream for Sent {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.received.poll_recv(context).map(|part| match part {
            Some(Part::Chunk(chunk)) => Some(Ok(chunk)),
            Some(Part::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(io::Error::other("the answer broke off")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::body::to_bytes;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_written_arrives_whole() {
        let body = body(b"a".to_vec(), async |mut writer: Writer| {
            writer.flush().await?;
            writer.text.extend_from_slice(&[b'b'; 3 * CHUNK]);
            writer.flush_if_full().await?;
            writer.text.push(b'c');
            writer.flush_if_full().await?;
            writer.end().await
        });
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        assert_eq!(bytes.len(), 3 * CHUNK + 2);
        assert!(bytes.starts_with(b"ab") && bytes.ends_with(b"bc"));
    }

    #[tokio::test]
    async fn a_writer_that_fails_or_dies_breaks_the_answer() {
        let failing = body(b"[1".to_vec(), async |mut writer: Writer| {
            writer.flush().await?;
            Err(Stop::Failed("the store is away".to_owned()))
        });
        assert!(to_bytes(failing, usize::MAX).await.is_err());
        let silent = body(b"[1".to_vec(), async |mut writer: Writer| {
            writer.flush().await
        });
        assert!(to_bytes(silent, usize::MAX).await.is_err());
        let dying = body(b"[1".to_vec(), async |mut writer: Writer| {
            writer.flush().await?;
            panic!("a defect");
        });
        assert!(to_bytes(dying, usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn a_writer_waits_for_a_client_that_does_not_read() {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sent);
        let body = body(Vec::new(), async move |mut writer: Writer| {
            for _ in 0..100 {
                writer.text.resize(CHUNK, b'x');
                writer.flush_if_full().await?;
                counted.fetch_add(1, Ordering::SeqCst);
            }
            writer.end().await
        });
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(sent.load(Ordering::SeqCst), QUEUE);
        assert_eq!(to_bytes(body, usize::MAX).await.unwrap().len(), 100 * CHUNK);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_the_writing_wherever_it_is() {
        let (alive, gone) = oneshot::channel::<()>();
        let body = body(Vec::new(), async move |_writer: Writer| {
            let _alive = alive;
            std::future::pending::<Result<(), Stop>>().await
        });
        tokio::task::yield_now().await;
        drop(body);
        // The writer has been dropped, together with everything that it holds.
        gone.await.unwrap_err();
    }
}
