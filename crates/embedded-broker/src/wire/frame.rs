//! Frames: four bytes of length, followed by that many bytes.
#![expect(clippy::disallowed_methods, reason = "the broker runs on real time")]

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};

/// The largest request, in bytes. By default clients send batches of 1 MB, and at most several of them in one request.
const LARGEST: usize = 16 * 1024 * 1024;
/// Requests larger than this, in bytes, are read only a few at a time ([`LARGE_AT_ONCE`]).
const LARGE: usize = 1024 * 1024;
/// Most large requests of all connections that are in memory at a time.
pub(crate) const LARGE_AT_ONCE: usize = 8;
/// Memory that is reserved for a request before its bytes arrive.
const FIRST_ROOM: usize = 64 * 1024;
/// An idle connection is closed after this time, as in Kafka (`connections.max.idle.ms`).
const IDLE: Duration = Duration::from_secs(600);
/// The time limit for receiving the rest of a request, and for sending an answer.
const TRANSFER: Duration = Duration::from_secs(30);

/// Reads a frame; `None` if the client has closed the connection between two frames. `large` has [`LARGE_AT_ONCE`]
/// permits.
///
/// # Errors
/// If the client is silent or slow for too long, breaks off, or announces too many bytes.
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
    if let Some(protocol) = another_protocol(length) {
        let reason = format!(
            "a client that speaks {protocol}; this port speaks Kafka's protocol, in plain text"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
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
        // Memory is reserved as bytes arrive, so a stated length alone costs nothing.
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

/// The protocol of a client that connected to this port by mistake. Read as a length, these bytes are far above
/// [`LARGEST`].
fn another_protocol(first: [u8; 4]) -> Option<&'static str> {
    match &first {
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"OPTI" | b"PATC" | b"DELE" | b"CONN" | b"PRI " => {
            Some("HTTP")
        }
        // A TLS handshake record (RFC 8446, section 5.1).
        [0x16, 0x03, _, _] => Some("TLS"),
        _ => None,
    }
}

/// Writes an answer, which is already a frame.
///
/// # Errors
/// If the client does not read it in time, or is gone.
pub(crate) async fn write(
    connection: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
) -> io::Result<()> {
    timeout(TRANSFER, connection.write_all(frame))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "an answer was not taken"))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn who_takes_this_port_for_one_of_another_protocol_is_told_so() {
        for (sent, protocol) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP"),
            (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..], "TLS"),
        ] {
            let mut connection = sent;
            let refused = read(&mut connection, &Semaphore::new(1)).await.unwrap_err();
            assert!(refused.to_string().contains(protocol), "{refused}");
        }
        let mut connection = &[0, 0, 0, 2, 7, 8][..];
        let frame = read(&mut connection, &Semaphore::new(1)).await.unwrap();
        assert_eq!(frame.unwrap(), [7, 8][..]);
    }
}
