//! Frames: a length of four bytes, and so many bytes.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};

/// Bytes of the largest request. Clients send batches of 1 MB unless they are told otherwise, and several in one request at most.
const LARGEST: usize = 16 * 1024 * 1024;
/// Requests larger than this are read only so many at a time ([`LARGE_AT_ONCE`]).
const LARGE: usize = 1024 * 1024;
/// Large requests of all connections that are in memory at a time.
pub(crate) const LARGE_AT_ONCE: usize = 8;
/// Room that is made for a request before its bytes come.
const FIRST_ROOM: usize = 64 * 1024;
/// A connection that says nothing for so long is closed, as Kafka does (`connections.max.idle.ms`).
const IDLE: Duration = Duration::from_secs(600);
/// A request that has begun must be here, and an answer be taken, within this time.
const TRANSFER: Duration = Duration::from_secs(30);

/// Reads a frame; `None` when the client has closed the connection between two frames. `large` has [`LARGE_AT_ONCE`] permits.
///
/// # Errors
/// When the client is silent or slow for too long, breaks off, or wants to send too much.
pub(crate) async fn read(
    connection: &mut (impl AsyncRead + Unpin),
    large: &Semaphore,
) -> io::Result<Option<Bytes>> {
    let mut length = [0; 4];
    match timeout(IDLE, connection.read_exact(&mut length)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Ok(None),
    }
    let length = i32::from_be_bytes(length);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= LARGEST)
        .ok_or_else(|| {
            let reason = format!("a request of {length} bytes; {LARGEST} are taken at most");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "a request was not sent to its end");
    timeout(TRANSFER, async {
        let _turn = match length > LARGE {
            true => large.acquire().await.ok(),
            false => None,
        };
        // Room is made as bytes come: a length alone costs nothing.
        let mut frame = BytesMut::with_capacity(length.min(FIRST_ROOM));
        let mut rest = connection.take(length as u64);
        while frame.len() < length {
            if rest.read_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(frame.freeze()))
    })
    .await
    .map_err(late)?
}

/// Writes an answer, which is a frame already.
///
/// # Errors
/// When the client does not take it in time, or is gone.
pub(crate) async fn write(
    connection: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
) -> io::Result<()> {
    timeout(TRANSFER, connection.write_all(frame))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "an answer was not taken"))?
}
