//! Reads and discards what a handler leaves unread of a request's body, up to a limit.
//!
//! A connection that is closed with unread data is reset (RFC 9112, 9.6). A client that sends everything before it
//! reads would then see the reset instead of the answer that refused its body.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes, HttpBody},
    extract::Request,
    http::header,
};
use futures::{Stream, StreamExt};
use tokio::{runtime::Handle, time::timeout};

/// The time limit for discarding.
const TIME: Duration = Duration::from_secs(10);

/// Wraps the request's body, so that at most `bytes` of it are read and discarded when the handler drops it.
pub(super) fn read_on(request: Request, bytes: usize) -> Request {
    // A client that waits for `100 Continue` sends no body after another answer (RFC 9110, 10.1.1).
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return request;
    }
    request.map(|body| {
        Body::from_stream(Read {
            rest: Some(body.into_data_stream()),
            bytes,
        })
    })
}

/// A body that is read to its end even after its reader has dropped it.
struct Read {
    /// `None` when it has ended.
    rest: Option<BodyDataStream>,
    /// How many bytes may be discarded.
    bytes: usize,
}

impl Stream for Read {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let polled = rest.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.rest = None;
        }
        polled
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        let (Some(mut rest), Ok(runtime)) = (self.rest.take(), Handle::try_current()) else {
            return;
        };
        let bytes = self.bytes;
        runtime.spawn(timeout(TIME, async move {
            let mut read = 0;
            while let Some(Ok(part)) = rest.next().await {
                read += part.len();
                if read > bytes {
                    break;
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::oneshot;

    use super::*;

    /// A body in parts of 10 bytes, the number of parts that were read, and a channel that reports when the body is
    /// dropped.
    fn body(parts: usize) -> (Body, Arc<AtomicUsize>, oneshot::Receiver<()>) {
        let (alive, dropped) = oneshot::channel::<()>();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let parts = futures::stream::iter(0..parts).map(move |_| {
            let _ = &alive;
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, axum::Error>(Bytes::from_static(b"0123456789"))
        });
        (Body::from_stream(parts), taken, dropped)
    }

    #[tokio::test]
    async fn what_is_left_is_read_to_its_end() {
        let (body, taken, dropped) = body(50);
        drop(read_on(Request::new(body), 1_000));
        dropped.await.unwrap_err();
        assert_eq!(taken.load(Ordering::SeqCst), 50);
    }

    #[tokio::test]
    async fn no_more_is_read_than_the_bound() {
        let (body, taken, dropped) = body(usize::MAX);
        drop(read_on(Request::new(body), 1_000));
        dropped.await.unwrap_err();
        assert_eq!(taken.load(Ordering::SeqCst), 101);
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_asked_is_not_read() {
        let (body, taken, dropped) = body(50);
        let mut request = Request::new(body);
        let waits = "100-continue".parse().unwrap();
        request.headers_mut().insert(header::EXPECT, waits);
        drop(read_on(request, 1_000));
        dropped.await.unwrap_err();
        assert_eq!(taken.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_handler_reads_all_of_it() {
        let (body, ..) = body(50);
        let read = read_on(Request::new(body), 10).into_body();
        let read = axum::body::to_bytes(read, usize::MAX).await.unwrap();
        assert_eq!(read.len(), 500);
    }
}
