//! The connection of a session. Sending and closing have time limits; after those the connection counts as lost.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::arriving::Arriving;

/// How long a client may take to accept one message before the connection counts as lost. The kernel accepts more only
/// when a third of its send buffer has been read (tcp(7), `sk_stream_write_space`), and that buffer may hold megabytes.
/// With this limit a client that reads 30 KB a second is not lost.
pub(super) const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// After an error this many more bytes are read and dropped.
const READ_ON: usize = 4 * 1024 * 1024;

pub(super) type Socket = WebSocketStream<Arriving<TokioIo<hyper::upgrade::Upgraded>>>;

pub(super) async fn send(socket: &mut Socket, message: Message) -> Option<()> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Some(()),
        _ => None,
    }
}

pub(super) async fn feed(socket: &mut Socket, message: Message) -> Option<()> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.feed(message)).await {
        Ok(Ok(())) => Some(()),
        _ => None,
    }
}

/// Sends the close frame that answers the client's (RFC 6455, section 5.5.1). The library created it when it read the
/// client's, so it only needs a flush. No other message may be sent any more.
pub(super) async fn answer_close(socket: &mut Socket) {
    let closing = async {
        if socket.flush().await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

/// Sends a close frame and waits a moment for the answer, so that the client can read it.
pub(super) async fn close(socket: &mut Socket, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code: code.into(),
        reason: Utf8Bytes::from_static(reason),
    };
    let closing = async {
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = socket.next().await {}
        // After an error the remaining bytes are not frames any more. They are read all the same: closing a connection
        // with unread bytes resets it, and the client would never see the close frame.
        let mut rest = vec![0; 16 * 1024];
        let mut read = 0;
        while read < READ_ON
            && let Ok(more @ 1..) = socket.get_mut().read(&mut rest).await
        {
            read += more;
        }
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}
