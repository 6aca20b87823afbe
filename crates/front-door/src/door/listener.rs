//! Accepts connections up to a limit, and serves HTTP/1.1 on each.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::Door;
use crate::graphql::Inner;
use crate::http::admission::{Client, Counted};
use crate::http::connection::{Abandon, Answering, Busy, Timed, Times};
use crate::refusals;
use crate::shutdown::Stop;

/// How long accepting pauses when the process has no file descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(50);
/// The largest head of a request, in bytes.
pub(super) const LARGEST_HEAD: usize = 64 * 1024;
/// The most headers that a request may have.
const MOST_HEADERS: usize = 100;

/// An open connection. It is counted, and the shutdown of the port waits for its end.
///
/// A WebSocket holds it for its whole life, which is longer than the HTTP server keeps the connection.
#[derive(Debug)]
pub(crate) struct Open {
    _counted: Counted,
    _finished: mpsc::Sender<Infallible>,
}

/// Serves until it is told to stop. Then it waits for open requests for at most `drain`; WebSocket clients are
/// informed.
pub(crate) async fn serve<I: Inner>(
    listener: TcpListener,
    door: Door<I>,
    stop: Stop,
    drain: Duration,
) -> io::Result<()> {
    let tasks = door.tasks();
    let (finished, mut all_finished) = mpsc::channel::<Infallible>(1);
    let stopped = stop.requested();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that broke off is no reason to wait. A lack of file descriptors is: it passes.
                if !is_of_connection(&error) {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        let client = Client::of(peer.ip());
        let Some(counted) = door.admit(client) else {
            refusals::count("connections");
            // It is closed without an answer: writing one would use the resources that are scarce.
            drop(stream);
            continue;
        };
        let open = Open {
            _counted: counted,
            _finished: finished.clone(),
        };
        let connection = connection(stream, peer, door.clone(), open, stop.clone());
        tasks.start(connection).detach();
    }
    drop(listener);
    drop(finished);
    if tokio::time::timeout(drain, all_finished.recv())
        .await
        .is_err()
    {
        tracing::warn!(
            limit_ms = drain.as_millis(),
            "requests were still open when the drain limit was over"
        );
    }
    Ok(())
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn connection<I: Inner>(
    stream: TcpStream,
    peer: SocketAddr,
    door: Door<I>,
    open: Open,
    stop: Stop,
) {
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().map_or(peer.ip(), |local| local.ip());
    let ends = Ends { peer, local };
    let Some(tls) = door.tls() else {
        return talk(stream, ends, true, door, open, stop).await;
    };
    let asks = tls.asks_clients();
    let shaking = tls.acceptor().accept(stream);
    match tokio::time::timeout(door.times().head, shaking).await {
        Ok(Ok(stream)) => {
            let is_certified = !asks || stream.get_ref().1.peer_certificates().is_some();
            talk(stream, ends, is_certified, door, open, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS connection was not made"),
        Err(_) => tracing::debug!(%peer, "a TLS connection was not made in time"),
    }
}

/// The peer's address, and the local address to which it connected.
#[derive(Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    local: IpAddr,
}

/// Serves HTTP on a connection.
async fn talk<I: Inner>(
    stream: impl AsyncRead + AsyncWrite + Abandon + Unpin + Send + 'static,
    Ends { peer, local }: Ends,
    is_certified: bool,
    door: Door<I>,
    open: Open,
    stop: Stop,
) {
    let times = door.times();
    let busy = Busy::default();
    let io = Timed::new(
        stream,
        Times {
            head: times.head,
            idle: times.idle,
        },
        busy.clone(),
    );
    let open = Arc::new(open);
    let service = service_fn(move |request: axum::http::Request<Incoming>| {
        let (answering, busy) = (busy.begin(), busy.clone());
        let (door, open) = (door.clone(), Arc::clone(&open));
        async move {
            let response = door.answer(request, peer, local, open, is_certified).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                busy.upgraded();
            }
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _answering: answering,
            }))
        }
    });
    // Without `pipeline_flush`. With it, hyper holds back the answer to a head that it cannot read, because it takes
    // that head for the next request. The connection would then end without an answer.
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .max_headers(MOST_HEADERS)
        .max_buf_size(LARGEST_HEAD)
        // hyper's timeout does not distinguish the wait for the first byte from the rest of a head. `Timed` does.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let stopped = stop.requested();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended");
    }
}

/// The body of an answer. The request counts as being answered until this is dropped.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
