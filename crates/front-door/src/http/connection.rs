//! One connection with time limits: for the first byte, for the head of a request, between two requests, and for a
//! client that does not read.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long a client may read nothing while bytes wait for it.
const STALLED: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(30)
};

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// For the head of a request, from its first byte. On a new connection it counts from the start.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
}

/// How many requests of a connection are being answered. Meanwhile nothing is expected from the client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<AtomicUsize>);

/// One request that is being answered.
#[derive(Debug)]
pub(crate) struct Answering(Busy);

impl Busy {
    pub(crate) fn begin(&self) -> Answering {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// The connection no longer carries requests. The new protocol has its own limits.
    pub(crate) fn upgraded(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that can be aborted.
pub(crate) trait Abandon {
    /// Makes the connection end with a reset, which drops what was written and not read. Otherwise the kernel keeps
    /// those bytes, some MiB, for minutes.
    fn abandon(&self);
}

impl Abandon for TcpStream {
    fn abandon(&self) {
        // Best effort: the connection is closed in any case.
        let _ = self.set_zero_linger();
    }
}

impl Abandon for tokio_rustls::server::TlsStream<TcpStream> {
    fn abandon(&self) {
        self.get_ref().0.abandon();
    }
}

/// A connection with time limits.
#[derive(Debug)]
pub(crate) struct Timed<T> {
    io: T,
    times: Times,
    busy: Busy,
    /// Until when a byte must have been read.
    read_until: Pin<Box<Sleep>>,
    waits_for_reading: Waits,
    write_until: Pin<Box<Sleep>>,
    waits_for_writing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// A request is being answered.
    No,
    /// For the first byte of the next request.
    ForRequest,
    /// For the rest of a head.
    ForHead,
}

impl<T> Timed<T> {
    pub(crate) fn new(io: T, times: Times, busy: Busy) -> Self {
        Self {
            io,
            times,
            busy,
            read_until: Box::pin(tokio::time::sleep(times.head)),
            // A client that connects is expected to send a request.
            waits_for_reading: Waits::ForHead,
            write_until: Box::pin(tokio::time::sleep(STALLED)),
            waits_for_writing: false,
        }
    }

    fn begin(&mut self, waits: Waits, time: Duration) {
        self.waits_for_reading = waits;
        self.read_until.as_mut().reset(Instant::now() + time);
    }

    fn written<R>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>>
    where
        T: Abandon,
    {
        if done.is_ready() {
            self.waits_for_writing = false;
            return done;
        }
        if !self.waits_for_writing {
            self.waits_for_writing = true;
            self.write_until.as_mut().reset(Instant::now() + STALLED);
        }
        ready!(self.write_until.as_mut().poll(context));
        self.io.abandon();
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client reads nothing",
        )))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(context, buffer) {
            let got = buffer.filled().len() > before;
            if this.busy.is() {
                this.waits_for_reading = Waits::No;
            } else if got && this.waits_for_reading != Waits::ForHead {
                this.begin(Waits::ForHead, this.times.head);
            }
            return Poll::Ready(read);
        }
        // An answer that was written completely is no longer being answered, but the client still has to read it.
        if this.busy.is() || this.waits_for_writing {
            this.waits_for_reading = Waits::No;
            return Poll::Pending;
        }
        if this.waits_for_reading == Waits::No {
            this.begin(Waits::ForRequest, this.times.idle);
        }
        ready!(this.read_until.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client sent no request in time",
        )))
    }
}

impl<T: AsyncWrite + Abandon + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.written(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(context);
        self.written(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_shutdown(context);
        self.written(context, done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    impl Abandon for tokio::io::DuplexStream {
        fn abandon(&self) {}
    }

    const TIMES: Times = Times {
        head: Duration::from_millis(50),
        idle: Duration::from_millis(150),
    };

    /// Fails if the connection is not closed in the end.
    async fn closed(timed: &mut Timed<tokio::io::DuplexStream>) {
        let closing = async { while timed.read(&mut [0; 16]).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), closing)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_or_never_ends_a_head_is_given_up() {
        let (_client, server) = tokio::io::duplex(64);
        closed(&mut Timed::new(server, TIMES, Busy::default())).await;

        let (mut client, server) = tokio::io::duplex(64);
        let mut timed = Timed::new(server, TIMES, Busy::default());
        let slow = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = client.write_all(b"x").await;
            }
        };
        tokio::select! {
            () = slow => {}
            () = closed(&mut timed) => {}
        }
    }

    #[tokio::test]
    async fn while_a_request_is_answered_nothing_is_expected_of_the_client_and_then_the_next_in_time()
     {
        let (mut client, server) = tokio::io::duplex(64);
        let busy = Busy::default();
        let mut timed = Timed::new(server, TIMES, busy.clone());
        client.write_all(b"request").await.unwrap();
        timed.read_exact(&mut [0; 7]).await.unwrap();
        let answering = busy.begin();
        let waited = tokio::time::timeout(3 * TIMES.idle, timed.read(&mut [0; 16])).await;
        assert!(waited.is_err());
        drop(answering);
        closed(&mut timed).await;
    }

    #[tokio::test]
    async fn of_a_connection_that_carries_another_protocol_nothing_is_expected() {
        let (mut client, server) = tokio::io::duplex(64);
        let busy = Busy::default();
        let mut timed = Timed::new(server, TIMES, busy.clone());
        let answering = busy.begin();
        client.write_all(b"request").await.unwrap();
        timed.read_exact(&mut [0; 7]).await.unwrap();
        busy.upgraded();
        drop(answering);
        client.write_all(b"a frame").await.unwrap();
        timed.read_exact(&mut [0; 7]).await.unwrap();
        let waited = tokio::time::timeout(3 * TIMES.idle, timed.read(&mut [0; 16])).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_client_reads_an_answer_slowly_no_request_is_expected_of_it() {
        let (mut client, server) = tokio::io::duplex(64);
        let (mut reading, mut writing) =
            tokio::io::split(Timed::new(server, TIMES, Busy::default()));
        client.write_all(b"request").await.unwrap();
        reading.read_exact(&mut [0; 7]).await.unwrap();
        // The answer is written completely, so no request is being answered. The client needs longer to read it than
        // the time between two requests.
        let answer = async {
            writing.write_all(&[0; 20 * 64]).await.unwrap();
            writing.flush().await.unwrap();
        };
        let slow = async {
            for _ in 0..20 {
                tokio::time::sleep(TIMES.idle / 10).await;
                client.read_exact(&mut [0; 64]).await.unwrap();
            }
        };
        let mut next = [0; 16];
        tokio::select! {
            ended = reading.read(&mut next) => panic!("given up: {ended:?}"),
            ((), ()) = async { tokio::join!(answer, slow) } => {}
        }
        // Afterwards the limit applies.
        assert!(reading.read(&mut next).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up() {
        let (_client, server) = tokio::io::duplex(64);
        let mut timed = Timed::new(server, TIMES, Busy::default());
        assert!(timed.write_all(&[0; 1_000]).await.is_err());
    }
}
